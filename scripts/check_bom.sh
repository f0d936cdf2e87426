#!/usr/bin/env bash
# Check the bills of materials of nano, and of a model that is made from it, against the schemas of CycloneDX and SPDX.
#
#     scripts/check_bom.sh
#
# Makes a Python environment of its own, target/bom-python, the first time; says `skipped` where that cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."
blackletter=${BLACKLETTER:-target/release/blackletter}
python=target/bom-python
if [ ! -f $python/ready ]; then
    python3 -m venv $python > /dev/null 2>&1 &&
        $python/bin/pip install --quiet 'cyclonedx-python-lib[json-validation]' spdx-python-model spdx3-validate > /dev/null 2>&1 &&
        touch $python/ready || { echo "skipped: Python or the packages that check bills are not to be had"; exit 0; }
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$blackletter" quantize models/nano "$work/q8" --dtype q8 > /dev/null
for model in nano "$work/q8"; do
    for format in cyclonedx spdx; do
        "$blackletter" bom --model "$model" --format $format --out "$work/$(basename "$model").$format.json"
    done
    $python/bin/python scripts/check_bom.py "$work/$(basename "$model")".{cyclonedx,spdx}.json
done
