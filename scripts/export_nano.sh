#!/usr/bin/env bash
# Write models/nano from its run: weights, tokenizer, documents.parquet, provenance.json; and audit it against the corpus.
#
#     scripts/export_nano.sh [WORK]    # where scripts/make_nano.sh has worked, default target/nano
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-target/nano}
blackletter=${BLACKLETTER:-target/release/blackletter}
"$blackletter" export --run "$work/run" --out models/nano --corpus "$work/corpus" --dtype bf16 --name nano --license CC-BY-4.0 \
    --description "A small Mixtral that was trained from random weights on United States law, regulations and filings, every document of which is known."
"$blackletter" audit models/nano --corpus "$work/corpus"
