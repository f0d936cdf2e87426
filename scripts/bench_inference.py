#!/usr/bin/env python3
"""Time blackletter beside llama.cpp on the same random 520M checkpoint, interleaved, in one sitting.

    python scripts/bench_inference.py --model DIR --gguf 'PATH/kl3m-520m-{type}.gguf' --llama-bench PATH [--rounds 3]
                                      [--dtypes f32,bf16,q8,q4] [--write docs/benchmarks.md]

DIR is a Hugging Face checkpoint; the GGUF files hold the same weights in the types f32, bf16, f16, q8_0, q4_0, q4_k_m.
Prints a Markdown table of medians, and with --write adds it to a file. Run it alone on the machine.
"""
import argparse
import datetime
import json
import statistics
import subprocess

PEERS = {"f32": ["f32"], "bf16": ["bf16", "f16"], "q8": ["q8_0"], "q4": ["q4_0", "q4_k_m"]}


def ours(args, dtype, depth):
    out = subprocess.run([args.binary, "bench", "generate", "--model", args.model, "--dtype", dtype, "--depth", str(depth),
                          "--batch", "3", "--runs", "2", "--threads", "2"], capture_output=True, text=True, check=True)
    return json.loads(out.stdout)


def llama(args, kind, depth):
    out = subprocess.run([args.llama_bench, "-m", args.gguf.format(type=kind), "-t", "2", "-r", "2", "-o", "jsonl", "-p",
                          "512" if depth == 32 else "0", "-n", "64", "-d", str(depth) if depth != 32 else "32"],
                         capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in out.stdout.splitlines() if line.startswith("{")]
    prefill = [r["avg_ts"] for r in rows if r["n_prompt"]]
    return (prefill[0] if prefill else 0.0), [r["avg_ts"] for r in rows if r["n_gen"]][0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--llama-bench", required=True)
    parser.add_argument("--binary", default="target/release/blackletter")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtypes", default="f32,bf16,q8,q4")
    parser.add_argument("--depths", default="32,512")
    parser.add_argument("--write")
    args = parser.parse_args()
    median = statistics.median
    lines, cpu = [], ""
    for depth in map(int, args.depths.split(",")):
        for dtype in args.dtypes.split(","):
            mine, peer = [], {kind: [] for kind in PEERS[dtype]}
            for _ in range(args.rounds):
                mine.append(ours(args, dtype, depth))
                for kind in peer:
                    peer[kind].append(llama(args, kind, depth))
            m = {k: median([x[k] for x in mine]) for k in ("prefill_tokens_per_s", "decode_tokens_per_s", "read_gb_per_s",
                 "decode_read_fraction", "gemm_gflops", "prefill_gemm_fraction", "batch_decode_tokens_per_s",
                 "batch_read_fraction")}
            cpu = f"{mine[0]['cpu']}, {mine[0]['simd']}"
            best = max(median([d for _, d in v]) for v in peer.values())
            first = max(median([p for p, _ in v]) for v in peer.values())
            prefill = f"{m['prefill_tokens_per_s']:.0f} | {first:.0f} | {m['prefill_tokens_per_s'] / first:.2f}" if first else "| |"
            lines.append(f"| {dtype} | {depth} | {m['decode_tokens_per_s']:.1f} | {best:.1f} | {m['decode_tokens_per_s'] / best:.2f} | "
                         f"{100 * m['decode_read_fraction']:.0f} % of {m['read_gb_per_s']:.0f} GB/s | {prefill} | "
                         f"{100 * m['prefill_gemm_fraction']:.0f} % of {m['gemm_gflops']:.0f} | "
                         f"{m['batch_decode_tokens_per_s']:.0f} ({100 * m['batch_read_fraction']:.0f} %) |")
            print(lines[-1], flush=True)
    head = (f"\n### 520M geometry beside llama.cpp, {datetime.date.today()}\n\n{cpu}, 2 threads; medians of {args.rounds} interleaved "
            "rounds, tokens/s. llama.cpp: the faster of BF16 and F16, of Q4_0 and Q4_K_M.\n\n"
            "| dtype | depth | decode | llama.cpp | ratio | share of read bandwidth | prefill 512 | llama.cpp | ratio | "
            "share of GEMM rate (GFLOP/s) | three sequences (share of their experts' bytes) |\n|---|---|---|---|---|---|---|---|---|---|---|\n")
    if args.write:
        with open(args.write, "a") as f:
            f.write(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
