#!/usr/bin/env bash
# The golden losses and gradients on a GPU through one of Burn's backends; for wgpu where there is no GPU, on Mesa's software Vulkan.
# Then a short run there beside the same run on the CPU.
#
#     scripts/check_gpu.sh wgpu|cuda [STORE]     # a token store to train on; none: the goldens alone
#
# wgpu needs a Vulkan driver (Debian: mesa-vulkan-drivers), cuda an NVIDIA driver and the CUDA toolkit.
set -euo pipefail
cd "$(dirname "$0")/.."
device=${1:?wgpu or cuda}
lavapipe=/usr/share/vulkan/icd.d/lvp_icd.x86_64.json
if [ "$device" = cuda ]; then
    [ -e /dev/nvidia0 ] || { echo "skipped: no NVIDIA card is here"; exit 0; }
elif [ -z "${VK_DRIVER_FILES:-}" ] && ! ls /dev/nvidia0 /dev/dri/renderD* > /dev/null 2>&1; then
    [ -f "$lavapipe" ] || { echo "skipped: neither a GPU nor Mesa's software Vulkan is here"; exit 0; }
    export VK_DRIVER_FILES=$lavapipe VK_ICD_FILENAMES=$lavapipe CUBECL_WGPU_DEFAULT_DEVICE=Cpu
fi
cargo test --release --package blackletter-model --features "$device" --test decoder gpu -- --nocapture
[ $# -gt 1 ] || exit 0
store=$(realpath "$2")
cargo build --release --package blackletter --features "$device"
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
for place in cpu "$device"; do
    target/release/blackletter train "$work/run.toml" --set run="$work/$place" --set device="$place"
done
python3 - "$work" "$device" <<'PY'
import json, sys
losses = [[json.loads(line)["loss"] for line in open(f"{sys.argv[1]}/{d}/metrics.jsonl")] for d in ("cpu", sys.argv[2])]
worst = max(abs(a - b) / a for a, b in zip(*losses))
print(f"largest relative difference of {len(losses[0])} losses: {worst:.1e}")
# CUDA multiplies in TF32.
assert worst < (1e-2 if sys.argv[2] == "cuda" else 1e-4), losses
PY
