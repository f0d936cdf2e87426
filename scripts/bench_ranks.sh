#!/usr/bin/env bash
# Tokens a second of one rank on two threads, of two ranks on one each, and of one rank on one thread, in turn.
#
#     scripts/bench_ranks.sh STORE [ROWS...]     # a token store; rows of a step (default 8 and 32), in micro-batches of two
#
# Prints one line of JSON a run; RECORD=NAME writes them to docs/measurements/NAME.json too. Needs what scripts/check_mpi.sh needs.
set -euo pipefail
cd "$(dirname "$0")/.."
store=$(realpath "$1")
all_rows=("${@:2}")
[ $# -gt 1 ] || all_rows=(8 32)
blackletter=${BLACKLETTER:-}
if [ -z "$blackletter" ]; then
    cargo build --release --package blackletter --features mpi
    blackletter=target/release/blackletter
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/run.toml" <<TOML
dtype = "f32"
[model]
geometry = "recipes/geometries/small.json"
[data]
store = "$store"
rows = 8
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
for rows in "${all_rows[@]}"; do
    for round in 1 2; do
        for case in "1 2" "2 1" "1 1"; do
            read -r ranks threads <<< "$case"
            run=$work/$rows-$ranks-$threads-$round
            mpirun --allow-run-as-root --oversubscribe --bind-to none -n "$ranks" "$blackletter" train "$work/run.toml" --set run="$run" \
                --set threads="$threads" --set data.rows="$rows" > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
            python3 - "$run/metrics.jsonl" "$rows" "$ranks" "$threads" <<'PY' | tee -a "$work/found"
import json, statistics, sys
steps = [r for r in map(json.loads, open(sys.argv[1])) if r["kind"] == "step"][2:]
rows, ranks, threads = map(int, sys.argv[2:])
rate = statistics.median(s["tokens_per_s"] for s in steps)
print(json.dumps(dict(rows=rows, ranks=ranks, threads=threads, tokens_per_s=rate, loss=steps[-1]["loss"])))
PY
        done
    done
done
if [ -n "${RECORD:-}" ]; then
    python3 scripts/measurement.py "$RECORD" "scripts/bench_ranks.sh STORE ${all_rows[*]}" < "$work/found"
fi
