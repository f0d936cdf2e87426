#!/usr/bin/env bash
# Tokens a second of one rank on two threads, of two ranks on one each, and of one rank on one thread, in turn.
#
#     scripts/bench_ranks.sh STORE [ROWS]     # a token store; rows of a step (default 32), in micro-batches of two
#
# Needs what scripts/check_mpi.sh needs.
set -euo pipefail
cd "$(dirname "$0")/.."
store=$(realpath "$1")
rows=${2:-32}
cargo build --release --package blackletter --features mpi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/run.toml" <<TOML
[model]
geometry = "recipes/geometries/small.json"
[data]
store = "$store"
rows = $rows
micro_batch_rows = 2
[stream]
context = 512
padding = "pack"
[schedule]
steps = 8
warmup = 2
cooldown = 2
[evaluation]
every = 0
[samples]
every = 0
[checkpoints]
every = 1000
TOML
for round in 1 2; do
    for case in "1 2" "2 1" "1 1"; do
        read -r ranks threads <<< "$case"
        run=$work/$ranks-$threads-$round
        mpirun --allow-run-as-root --oversubscribe --bind-to none -n "$ranks" target/release/blackletter train "$work/run.toml" \
            --set run="$run" --set threads="$threads" > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
        python3 - "$run/metrics.jsonl" "$ranks x $threads" <<'PY'
import json, statistics, sys
steps = [r for r in map(json.loads, open(sys.argv[1])) if r["kind"] == "step"][2:]
print(f"{sys.argv[2]} threads: {statistics.median(s['tokens_per_s'] for s in steps):.0f} tokens/s, last loss {steps[-1]['loss']:.10f}")
PY
    done
done
