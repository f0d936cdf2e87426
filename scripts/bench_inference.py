#!/usr/bin/env python3
"""Time blackletter beside llama.cpp and transformers on the same random 520M checkpoint, interleaved, in one sitting.

    python scripts/bench_inference.py --model DIR --gguf 'PATH/kl3m-520m-{type}.gguf' --llama-bench PATH [--rounds 3]
                                      [--dtypes f32,bf16,q8,q4] [--transformers-python VENV/bin/python]
                                      [--record inference]

DIR is a Hugging Face checkpoint; the GGUF files hold the same weights in the types f32, bf16, f16, q8_0, q4_0, q4_k_m.
--transformers-python names a Python with torch and transformers (scripts/python-env.sh makes one); tcmalloc is preloaded there when the
system has it. `blackletter bench generate --random-geometry kl3m-002-520m` leaves a fitting checkpoint in the temporary folder.
Prints a Markdown table of medians. First, for each dtype, the time from the start of `generate --max-new-tokens 1` to its end, and the most memory
that `bench generate` held beside the weights. Run it alone on the machine.
"""
import argparse
import ctypes.util
import json
import os
import pathlib
import statistics
import subprocess
import time

from measurement import record

PEERS = {"f32": ["f32"], "bf16": ["bf16", "f16"], "q8": ["q8_0"], "q4": ["q4_0", "q4_k_m"]}


def ours(args, dtype, depth):
    out = subprocess.run([args.binary, "bench", "generate", "--model", args.model, "--dtype", dtype, "--depth", str(depth),
                          "--batch", "3", "--runs", "2", "--threads", "2"], capture_output=True, text=True, check=True)
    return json.loads(out.stdout)


def first_token(args, dtype):
    """Seconds of a whole `generate` that makes one token after three, the file in the page cache."""
    seconds = []
    for _ in range(4):  # the first fills the cache
        start = time.perf_counter()
        subprocess.run([args.binary, "generate", "--model", args.model, "--ids", "5,6,7", "--format", "ids", "--dtype", dtype, "--max-new-tokens", "1", "--threads", "2"],
                       capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def llama(args, kind, depth):
    out = subprocess.run([args.llama_bench, "-m", args.gguf.format(type=kind), "-t", "2", "-r", "2", "-o", "jsonl", "-p",
                          "512" if depth == 32 else "0", "-n", "64", "-d", str(depth) if depth != 32 else "32"],
                         capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in out.stdout.splitlines() if line.startswith("{")]
    prefill = [r["avg_ts"] for r in rows if r["n_prompt"]]
    return (prefill[0] if prefill else 0.0), [r["avg_ts"] for r in rows if r["n_gen"]][0]


def transformers(args, dtype):
    """Rates of transformers, f32 or bf16."""
    command = [args.transformers_python, pathlib.Path(__file__).with_name("time_transformers.py"), "--model", args.model, "--dtype",
               {"f32": "float32", "bf16": "bfloat16"}[dtype], "--depths", args.depths, "--runs", "2"]
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
    allocator = ctypes.util.find_library("tcmalloc_minimal")
    if allocator:
        environment["LD_PRELOAD"] = allocator
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(out.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--llama-bench", required=True)
    parser.add_argument("--binary", default="target/release/blackletter")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtypes", default="f32,bf16,q8,q4")
    parser.add_argument("--depths", default="32,512")
    parser.add_argument("--record", metavar="NAME", help="write what was found to docs/measurements/NAME.json")
    parser.add_argument("--transformers-python")
    args = parser.parse_args()
    median = statistics.median
    lines, rows = [], []
    other = {}
    first_tokens = {dtype: first_token(args, dtype) for dtype in args.dtypes.split(",")}
    for dtype, seconds in first_tokens.items():
        print(f"{dtype}: first token after {', '.join(f'{s:.2f}' for s in seconds)} s", flush=True)
    if args.transformers_python:
        for dtype in {"f32", "bf16"} & set(args.dtypes.split(",")):
            other[dtype] = transformers(args, dtype)
    for depth in map(int, args.depths.split(",")):
        for dtype in args.dtypes.split(","):
            mine, peer = [], {kind: [] for kind in PEERS[dtype]}
            for _ in range(args.rounds):
                mine.append(ours(args, dtype, depth))
                for kind in peer:
                    peer[kind].append(llama(args, kind, depth))
            m = {k: median([x[k] for x in mine]) for k in ("prefill_tokens_per_s", "decode_tokens_per_s", "read_gb_per_s",
                 "decode_read_fraction", "gemm_gflops", "prefill_gemm_fraction", "batch_decode_tokens_per_s",
                 "batch_read_fraction", "batch_of_single_fraction")}
            best = max(median([d for _, d in v]) for v in peer.values())
            first = max(median([p for p, _ in v]) for v in peer.values())
            prefill = f"{m['prefill_tokens_per_s']:.0f} | {first:.0f} | {m['prefill_tokens_per_s'] / first:.2f}" if first else "| |"
            beside = ""
            if dtype in other:
                theirs = other[dtype]["prefill"], other[dtype]["decode"][str(depth)]
                m |= dict(transformers_prefill=theirs[0], transformers_decode=theirs[1])
                beside = (f"{theirs[0]:.0f} ({m['prefill_tokens_per_s'] / theirs[0]:.2f}), "
                          f"{theirs[1]:.1f} ({m['decode_tokens_per_s'] / theirs[1]:.2f})")
            lines.append(f"| {dtype} | {depth} | {m['decode_tokens_per_s']:.1f} | {best:.1f} | {m['decode_tokens_per_s'] / best:.2f} | "
                         f"{100 * m['decode_read_fraction']:.0f} % of {m['read_gb_per_s']:.0f} GB/s | {prefill} | "
                         f"{100 * m['prefill_gemm_fraction']:.0f} % of {m['gemm_gflops']:.0f} | "
                         f"{m['batch_decode_tokens_per_s']:.0f} ({100 * m['batch_read_fraction']:.0f} %, {100 * m['batch_of_single_fraction']:.0f} %) | {beside} |")
            print(lines[-1], flush=True)
            memory = max(x["peak_memory_bytes"] - x["weight_bytes"] for x in mine)
            rows.append(dict(dtype=dtype, depth=depth, llama_decode=best, llama_prefill=first or None, memory_beside_weights=memory, **m))
    if args.record:
        record(args.record, dict(rounds=args.rounds, first_token_s=first_tokens, rows=rows))


if __name__ == "__main__":
    main()
