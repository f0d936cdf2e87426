#!/usr/bin/env bash
# Evaluate models/nano and write its card, models/nano/README.md, from its record and the results. No figure is typed by hand.
#
#     scripts/evaluate_nano.sh [WORK]    # where scripts/make_nano.sh has worked, default target/nano
#
# Needs the validation documents at ../shared/corpus/validation; legal-small, at ../shared/reference, is measured beside it where it lies,
# and so is the same run without examples, where scripts/make_nano.sh --without-examples has made it.
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-target/nano}
blackletter=${BLACKLETTER:-target/release/blackletter}
validation=../shared/corpus/validation
parts=()
for part in usc dc cfr12 gpo scotus edgar; do parts+=("$validation/$part.jsonl.zst"); done
evals=$work/evals
run() { "$blackletter" eval "$@" --model models/nano --format markdown --out "$evals/nano"; }

# Examples from the validation documents, which no training has seen.
"$blackletter" corpus ingest "$validation"/*.jsonl.zst --accept LicenseRef-SEC-EDGAR="as in the corpus" --out "$work/validation"
"$blackletter" dataset sft --corpus "$work/validation" --out "$work/validation.jsonl"

limits=(--by file --limit-documents 25 --limit-characters 8000)
run perplexity "${parts[@]}" "${limits[@]}"
run sft "$work/validation.jsonl" --limit 100
run tasks scripts/tasks/legal_terms.yaml
run bias
for experiment in 1 2 3; do run toxicity --experiment "$experiment"; done
"$blackletter" index --dataset "$work/store" --corpus "$work/corpus" --out "$work/index"
run memorization --index "$work/index"
if [ -d ../shared/reference/legal-small ]; then
    "$blackletter" eval perplexity "${parts[@]}" "${limits[@]}" --model ../shared/reference/legal-small --out "$evals/legal-small" > /dev/null
fi
if [ -d "$work/without-examples" ]; then
    plain=$work/nano-without-examples
    "$blackletter" export --run "$work/without-examples" --out "$plain" --dtype bf16 --name nano-without-examples --license CC-BY-4.0
    "$blackletter" eval perplexity "${parts[@]}" "${limits[@]}" --model "$plain" --out "$evals/nano-without-examples" > /dev/null
    "$blackletter" eval sft "$work/validation.jsonl" --limit 100 --model "$plain" --out "$evals/nano-without-examples" > /dev/null
fi
beside=()
for other in nano-without-examples legal-small; do
    [ -d "$evals/$other" ] && beside+=("$evals/$other")
done
"$blackletter" report --model models/nano --name models/nano --evals "$evals/nano" "${beside[@]}" --out "$work/report" \
    --introduction models/nano/introduction.md --update-card
