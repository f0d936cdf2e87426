#!/usr/bin/env bash
# The golden losses and gradients on a GPU through Burn's wgpu backend; where there is none, on Mesa's software Vulkan. Then a short
# run there beside the same run on the CPU.
#
#     scripts/check_gpu.sh [STORE]     # a token store to train on; none: the goldens alone
#
# Needs a Vulkan driver (Debian: mesa-vulkan-drivers).
set -euo pipefail
cd "$(dirname "$0")/.."
lavapipe=/usr/share/vulkan/icd.d/lvp_icd.x86_64.json
if [ -z "${VK_DRIVER_FILES:-}" ] && ! ls /dev/nvidia0 /dev/dri/renderD* > /dev/null 2>&1; then
    [ -f "$lavapipe" ] || { echo "skipped: neither a GPU nor Mesa's software Vulkan is here"; exit 0; }
    export VK_DRIVER_FILES=$lavapipe VK_ICD_FILENAMES=$lavapipe CUBECL_WGPU_DEFAULT_DEVICE=Cpu
fi
cargo test --release --package blackletter-model --features wgpu --test decoder gpu
[ $# -gt 0 ] || exit 0
store=$(realpath "$1")
cargo build --release --package blackletter --features wgpu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/run.toml" <<TOML
[model]
geometry = "recipes/geometries/small.json"
[data]
store = "$store"
rows = 2
micro_batch_rows = 1
[stream]
context = 128
[schedule]
steps = 3
warmup = 1
cooldown = 1
[evaluation]
every = 0
[samples]
every = 0
TOML
for device in cpu wgpu; do
    target/release/blackletter train "$work/run.toml" --set run="$work/$device" --set device="$device"
done
python3 - "$work" <<'PY'
import json, sys
losses = [[json.loads(line)["loss"] for line in open(f"{sys.argv[1]}/{d}/metrics.jsonl")] for d in ("cpu", "wgpu")]
worst = max(abs(a - b) / a for a, b in zip(*losses))
print(f"largest relative difference of {len(losses[0])} losses: {worst:.1e}")
assert worst < 1e-4, losses
PY
