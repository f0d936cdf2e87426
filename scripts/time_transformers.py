#!/usr/bin/env python3
"""Time transformers on a Mixtral checkpoint; prints one JSON object of medians. Called by bench_inference.py.

    python scripts/time_transformers.py --model DIR --dtype float32|bfloat16 --depths 32,512 [--runs 3]

SDPA attention and grouped_mm experts, two threads, KV cache of its own; no sampling, so that only the model is timed. Prefill is a forward
pass over 512 tokens that makes the logits of the last; decoding is 64 further tokens, one at a time, after `depth` tokens.
"""
import argparse
import json
import statistics
import time

import torch
from transformers import AutoModelForCausalLM


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--depths", default="32,512")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, args.dtype), attn_implementation="sdpa",
                                                 experts_implementation="grouped_mm").eval()
    draw = torch.Generator().manual_seed(1)

    def ids(n):
        return torch.randint(7, model.config.vocab_size, (1, n), generator=draw)

    prefill, decode = [], {depth: [] for depth in map(int, args.depths.split(","))}
    with torch.inference_mode():
        for run in range(args.runs + 1):  # the first warms up
            start = time.perf_counter()
            model(ids(512), logits_to_keep=1)
            prefill.append(512 / (time.perf_counter() - start))
            for depth, rates in decode.items():
                cache = model(ids(depth), logits_to_keep=1, use_cache=True).past_key_values
                start = time.perf_counter()
                for _ in range(64):
                    cache = model(ids(1), past_key_values=cache, use_cache=True).past_key_values
                rates.append(64 / (time.perf_counter() - start))
    print(json.dumps({"prefill": statistics.median(prefill[1:]),
                      "decode": {depth: statistics.median(rates[1:]) for depth, rates in decode.items()}}))


if __name__ == "__main__":
    main()
