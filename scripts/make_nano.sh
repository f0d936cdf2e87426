#!/usr/bin/env bash
# Make models/nano from nothing: corpus, tokenizer, examples, token store, training, export. scripts/evaluate_nano.sh does the rest.
#
#     scripts/make_nano.sh [WORK] [--without-examples]      # default target/nano; a run that was stopped goes on
#
# --without-examples trains the same run without examples beside it, to see what they give; it is not exported.
#
# Needs the texts at ../shared/corpus. The training takes some 90 minutes on two cores with BF16 dot products.
set -euo pipefail
cd "$(dirname "$0")/.."
without=
[ "${*: -1}" = --without-examples ] && { without=1; set -- "${@:1:$#-1}"; }
work=${1:-target/nano}
mkdir -p "$work"
BLACKLETTER_COMMIT=$(git rev-parse HEAD) cargo build --release --package blackletter
blackletter=target/release/blackletter
"$blackletter" corpus build models/nano/corpus.toml --out "$work/corpus"
"$blackletter" tokenizer train --corpus "$work/corpus" --recipe kl3m-001 --vocab-size 8192 --out "$work/tokenizer"
"$blackletter" dataset sft --corpus "$work/corpus" --out "$work/examples.jsonl"
"$blackletter" dataset build --corpus "$work/corpus" --tokenizer "$work/tokenizer" --sft "$work/examples.jsonl" --out "$work/store"
if [ -n "$without" ]; then
    resume=()
    [ -f "$work/without-examples/config.toml" ] && resume=(--resume)
    "$blackletter" train models/nano/run.toml --set run="$work/without-examples" --set data.store="$work/store" --set stream.sft_weight=0 "${resume[@]}"
    exit
fi
resume=()
[ -f "$work/run/config.toml" ] && resume=(--resume)
"$blackletter" train models/nano/run.toml --set run="$work/run" --set data.store="$work/store" "${resume[@]}"
scripts/export_nano.sh "$work"
