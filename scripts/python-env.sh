#!/usr/bin/env bash
# Make a Python environment for the scripts beside this one (about 6 GB with torch), and say how to use it.
#
#     scripts/python-env.sh [DIR]      # default: target/python
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${1:-target/python}
python3 -m venv "$dir"
"$dir/bin/pip" install --quiet torch==2.15.* transformers==5.23.* safetensors tokenizers numpy
echo "use it as: $dir/bin/python scripts/make_goldens.py"
