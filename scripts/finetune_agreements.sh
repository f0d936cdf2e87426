#!/usr/bin/env bash
# Train nano further by recipes/agreements.toml, and measure it before and after on the validation documents.
#
#     scripts/finetune_agreements.sh [WORK]      # default target/agreements
#
# RECORD=NAME writes the figures to docs/measurements/NAME.json. Needs the texts at ../shared/corpus.
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-target/agreements}
blackletter=${BLACKLETTER:-target/release/blackletter}
parts=()
for part in edgar contracts usc; do parts+=("../shared/corpus/validation/$part.jsonl.zst"); done
resume=()
[ -f "$work/run/config.toml" ] && resume=(--resume)
"$blackletter" finetune recipes/agreements.toml --set run="$work/run" "${resume[@]}"
"$blackletter" export --run "$work/run" --out "$work/model" --dtype bf16 --name agreements --license LicenseRef-SEC-EDGAR
measure() { "$blackletter" eval perplexity "${parts[@]}" --by file --limit-documents 25 --limit-characters 8000 --model "$1" --out "$2" > /dev/null; }
measure models/nano "$work/before"
measure "$work/model" "$work/after"
python3 - "$work" <<'PY' > "$work/found"
import json, sys
groups = {when: json.load(open(f"{sys.argv[1]}/{when}/perplexity.json"))["groups"] for when in ("before", "after")}
for before, after in zip(groups["before"], groups["after"]):
    print(json.dumps(dict(group=before["name"], before=before["bits_per_byte"]["value"], after=after["bits_per_byte"]["value"])))
PY
cat "$work/found"
if [ -n "${RECORD:-}" ]; then python3 scripts/measurement.py "$RECORD" scripts/finetune_agreements.sh < "$work/found"; fi
