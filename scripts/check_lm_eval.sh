#!/usr/bin/env bash
# Run lm-evaluation-harness against `blackletter serve`, and compare with `blackletter eval tasks` on the same task.
#
#     pip install 'lm-eval[api]' transformers
#     scripts/check_lm_eval.sh MODEL_DIR      # BLACKLETTER names another program than target/release/blackletter
#
# The task and its data are ours (scripts/tasks), the tokenizer is the model's own; nothing is fetched.
set -euo pipefail
model=$(realpath "$1")
here=$(realpath "$(dirname "$0")")
blackletter=$(realpath "${BLACKLETTER:-$here/../target/release/blackletter}")
port=${PORT:-8731}
work=$(mktemp -d)
"$blackletter" serve --model "$model" --port "$port" > "$work/serve.log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null; rm -rf "$work"' EXIT
for _ in $(seq 60); do curl -sf "http://127.0.0.1:$port/v1/models" > /dev/null && break; sleep 0.5; done
name=$(curl -sf "http://127.0.0.1:$port/v1/models" | python3 -c 'import json,sys; print(json.load(sys.stdin)["data"][0]["id"])')
# The harness looks for data files from where it runs.
cd "$here/tasks"
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
lm_eval --model local-completions --include_path . --tasks legal_terms --output_path "$work/harness" --batch_size 1 \
    --model_args "model=$name,base_url=http://127.0.0.1:$port/v1/completions,tokenizer=$model,tokenizer_backend=huggingface,tokenized_requests=True,num_concurrent=1,max_retries=3"
"$blackletter" eval tasks --model "$model" legal_terms.yaml --out "$work/ours" > /dev/null
python3 - "$work" <<'PY'
import json, sys
from pathlib import Path
work = Path(sys.argv[1])
theirs = json.loads(next((work / "harness").rglob("results_*.json")).read_text())["results"]["legal_terms"]
ours = json.loads((work / "ours/tasks.json").read_text())["tasks"][0]["metrics"]
for metric in ("acc", "acc_norm"):
    print(f"{metric}: harness through serve {theirs[metric + ',none']:.4f}, eval tasks {ours[metric]['value']:.4f}")
    if abs(theirs[metric + ",none"] - ours[metric]["value"]) > 1e-9:
        sys.exit("they differ")
PY
