#!/usr/bin/env bash
# Train the same run with one, two and four ranks and compare the losses; kill a rank, and go on with another number of them.
#
#     scripts/check_mpi.sh STORE [GEOMETRY]     # a token store, and a config.json (default recipes/geometries/small.json)
#
# RECORD=NAME writes the differences to docs/measurements/NAME.json too. Needs Open MPI and libclang (Debian: openmpi-bin libopenmpi-dev libclang-dev).
set -euo pipefail
cd "$(dirname "$0")/.."
store=$(realpath "$1")
geometry=${2:-recipes/geometries/small.json}
blackletter=${BLACKLETTER:-}
if [ -z "$blackletter" ]; then
    cargo build --release --package blackletter --features mpi
    blackletter=$PWD/target/release/blackletter
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/run.toml" <<TOML
[model]
geometry = "$geometry"
[data]
store = "$store"
rows = 8
micro_batch_rows = 1
[stream]
context = 256
[schedule]
steps = 12
warmup = 2
cooldown = 4
[evaluation]
every = 6
tokens = 2000
[samples]
every = 0
[checkpoints]
every = 3
TOML
ranks() { # number, name of the run, further options
    local count=$1 name=$2
    shift 2
    mpirun --allow-run-as-root --oversubscribe --bind-to none -n "$count" "$blackletter" train "$work/run.toml" --set run="$work/$name" \
        --set threads=1 "$@"
}
for count in 1 2 4; do ranks "$count" "run$count" 2> /dev/null; done
# A rank that dies ends the job with an error; the run goes on with another number of ranks.
ranks 2 killed 2> /dev/null &
job=$!
until [ -d "$work/killed/checkpoints/step-00000003" ]; do sleep 0.1; done
pkill -9 -n -f "run=$work/killed" || true
if wait "$job"; then echo "a killed rank did not end the job"; exit 1; fi
ranks 4 killed --resume 2> /dev/null
python3 - "$work" <<'PY' > "$work/found"
import json, sys
def losses(name):
    lines = map(json.loads, open(f"{sys.argv[1]}/{name}/metrics.jsonl"))
    return [line["loss"] if line["kind"] == "step" else line["all"]["loss"] for line in lines]
one = losses("run1")
for name in ("run2", "run4", "killed"):
    other = losses(name)
    assert len(other) == len(one), (name, len(other), len(one))
    worst = max(abs(a - b) / abs(a) for a, b in zip(one, other))
    print(json.dumps(dict(run=name, losses=len(one), largest_relative_difference=worst)))
    assert worst < 1e-4, name
PY
cat "$work/found"
if [ -n "${RECORD:-}" ]; then python3 scripts/measurement.py "$RECORD" "scripts/check_mpi.sh STORE" < "$work/found"; fi
