#!/usr/bin/env bash
# Train the small geometry with AdamW and with Muon at several rates, and draw held-out loss over time.
#
#     scripts/compare_optimizers.sh STORE OUT.svg [DEVICE]     # a token store with a held-out part; cpu (default), wgpu or cuda
#
# RECORD=NAME writes the losses to docs/measurements/NAME.json too.
#
# 160 steps of 16 x 512 tokens each: about two minutes a run on two cores with BF16 dot products, one on a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
store=$(realpath "$1")
out=$2
device=${3:-cpu}
features=()
[ "$device" = cpu ] || features=(--features "$device")
cargo build --release --package blackletter "${features[@]}"
work=${WORK:-$(mktemp -d)}
cat > "$work/run.toml" <<TOML
device = "$device"
dtype = "$([ "$device" = cpu ] && echo bf16 || echo f32)"
[model]
geometry = "recipes/geometries/small.json"
[data]
store = "$store"
rows = 16
micro_batch_rows = 16
[stream]
context = 512
padding = "pack"
[schedule]
steps = 160
warmup = 16
cooldown = 56
[evaluation]
every = 20
tokens = 32768
[samples]
every = 0
[checkpoints]
every = 1000
TOML
runs=()
for run in muon-3e-3 muon-6e-3 adamw-1e-3 adamw-3e-3 adamw-6e-3; do
    target/release/blackletter train "$work/run.toml" --set run="$work/$run" --set optimizer.name="${run%%-*}" --set schedule.peak="${run#*-}"
    runs+=("$work/$run/metrics.jsonl")
done
where=()
[ "$device" = cpu ] || where=(--machine "$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader)")
python3 scripts/plot_runs.py --out "$out" "${runs[@]}" ${RECORD:+--record "$RECORD"} "${where[@]}"
echo "the runs are in $work"
