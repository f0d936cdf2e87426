#!/usr/bin/env bash
# Measure everything that docs/benchmarks.md shows, and write the page anew. About 90 minutes; nothing else may run meanwhile.
#
#     scripts/measure_all.sh [GROUP...]     # inference serving training constraint ranks trace corpus encoding transformers extract agreements build gpu
#
# What the peers need is named by variables; a group whose peer is missing says so and is left out:
#
#     PYTHON       a Python with torch, transformers, tokenizers, peft and zstandard (scripts/python-env.sh makes one)
#     LLAMA        a folder with llama-bench and llama-server
#     GGUF         files of the random 520M checkpoint, such as PATH/kl3m-520m-{type}.gguf, in the types f32 bf16 f16 q8_0 q4_0 q4_k_m
#     DATATROVE    the command that times datatrove over the shared corpus and prints its rate as JSON
#     NANO         where scripts/make_nano.sh has worked (default target/nano)
#
# Needs ../shared with its corpus and reference models. A GPU's figures are made on a machine that has one: scripts/bench_gpu.py and
# scripts/compare_optimizers.sh write their records there.
set -euo pipefail
cd "$(dirname "$0")/.."
groups=("$@")
[ $# -gt 0 ] || groups=(inference serving training constraint ranks trace corpus encoding transformers extract agreements build)
python=${PYTHON:-target/python/bin/python}
nano=${NANO:-target/nano}
geometry=kl3m-002-520m
tokenizer=../shared/reference/kl3m-001-32k
parts=()
for part in usc dc cfr12 gpo scotus edgar; do parts+=("../shared/corpus/validation/$part.jsonl.zst"); done
cargo build --release --workspace --examples
cargo build --release --workspace
blackletter=$PWD/target/release/blackletter
model=${TMPDIR:-/tmp}/blackletter-random-$geometry
wants() { # a group, and the programs or folders that it needs
    local group=$1
    shift
    [[ " ${groups[*]} " == *" $group "* ]] || return 1
    for need in "$@"; do
        command -v "$need" > /dev/null || [ -e "$need" ] || { echo "left out: $group needs ${need:-a peer that no variable names}" >&2; return 1; }
    done
    echo "== $group" >&2
}
random_model() { [ -d "$model" ] || "$blackletter" bench generate --random-geometry $geometry --runs 1 > /dev/null; }

if wants inference "$python" "${LLAMA:-}/llama-bench"; then
    random_model
    "$python" scripts/bench_inference.py --model "$model" --gguf "$GGUF" --llama-bench "$LLAMA/llama-bench" --rounds 2 --transformers-python "$python" --record inference
fi
if wants serving "${LLAMA:-}/llama-server"; then
    random_model
    for dtype in f32 bf16 q8; do
        gguf=${GGUF/\{type\}/${dtype/q8/q8_0}}
        python3 scripts/bench_serving.py --model "$model" --tokenizer $tokenizer --dtype $dtype --llama-server "$LLAMA/llama-server" --gguf "$gguf" --rounds 2 \
            --record serving-$dtype
    done
fi
if wants training "$python"; then
    "$python" scripts/bench_train.py --case small-4096 --case small-32768 --rounds 2 --steps 4 --recompute --record training-small
    "$python" scripts/bench_train.py --case 520m --rounds 1 --steps 2 --torch eager grouped_mm --recompute --record training-520m
    "$python" scripts/bench_train.py --losses target/release/examples/train_losses --text ../shared/corpus/validation/{usc,edgar,scotus}.jsonl.zst \
        --tokenizer models/nano/tokenizer.json --record training-losses
    blocks=(bench train --geometry recipes/geometries/small.json --vocab 32768 --batch 8 --seq 512 --dtype bf16 --steps 5 --profile)
    "$blackletter" "${blocks[@]}" | python3 scripts/measurement.py training-blocks "blackletter ${blocks[*]}"
    [ ! -d "$nano/run" ] || python3 scripts/summarize_run.py "$nano/run" --record nano-run
fi
if wants constraint $tokenizer; then
    options="crates/engine/tests/schemas.jsonl --random-geometry $geometry --tokenizer"
    "$blackletter" bench constraint $options $tokenizer | python3 scripts/measurement.py constraint "blackletter bench constraint $options KL3M_001_32K"
fi
if wants ranks mpirun "$nano/store"; then
    RECORD=ranks scripts/bench_ranks.sh "$nano/store" 8 32
    RECORD=ranks-losses scripts/check_mpi.sh "$nano/store"
    cargo build --release --workspace
fi
if wants trace "$nano/index"; then
    zstd -dcq "${parts[@]}" > "$nano/validation-texts.jsonl"
    python3 scripts/bench_trace.py --index "$nano/index" --other "$nano/validation-texts.jsonl" --record trace
fi
if wants corpus "$nano/corpus"; then
    peer=()
    [ -z "${DATATROVE:-}" ] || peer=(-- $DATATROVE)
    python3 scripts/bench_corpus.py --recipe recipes/shared.toml --record corpus "${peer[@]}"
    python3 scripts/bench_dataset.py --corpus "$nano/corpus" --vocab-size 8192 --record dataset
fi
if wants encoding "$python"; then
    "$python" scripts/bench_tokenizer.py $tokenizer ../shared/corpus/{usc,edgar}.jsonl.zst --megabytes 20 --rounds 2 --record encoding
    "$python" scripts/check_tokenizer.py $tokenizer ../shared/corpus/{usc,edgar,scotus,dc,cfr12}.jsonl.zst --record ids
fi
if wants transformers "$python" "$nano/evals"; then
    "$python" scripts/compare_perplexity.py models/nano "$nano/evals/nano" "${parts[@]}" --record perplexity-nano
    "$python" scripts/compare_perplexity.py ../shared/reference/legal-small "$nano/evals/legal-small" "${parts[@]}" --record perplexity-legal-small
    RECORD=export "$python" scripts/check_export.py models/nano
    adapter=$(mktemp -d)
    "$blackletter" finetune recipes/agreements.toml --set run="$adapter/run" --set adapter.rank=8 --set schedule.steps=20 --set schedule.warmup=2 \
        --set schedule.cooldown=8 --set evaluation.every=0 --set samples.every=0
    RECORD=peft "$python" scripts/check_peft.py models/nano "$adapter/run/adapter"
    rm -r "$adapter"
fi
if wants extract "$nano/validation.jsonl"; then
    python3 scripts/evaluate_extract.py "$nano/validation.jsonl" --record extract
fi
if wants agreements ../shared/corpus; then
    RECORD=agreements scripts/finetune_agreements.sh
fi
if wants build cargo; then
    python3 scripts/bench_build.py --record build
fi
if wants gpu nvidia-smi; then
    cargo build --release --package blackletter --features cuda,wgpu
    "$python" scripts/bench_gpu.py --out "$(mktemp -d)" --torch-python "$python" --record gpu
    RECORD=optimizers scripts/compare_optimizers.sh "$nano/store" docs/optimizers.svg cuda
fi
UPDATE_DOCS=1 cargo test --release --workspace --test documentation
