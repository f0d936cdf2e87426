#!/usr/bin/env python3
"""Score the documents of an `eval perplexity` with transformers, in the same windows, and compare.

    blackletter eval perplexity --model MODEL --by file --limit-documents 25 --limit-characters 8000 DATA --out RESULTS
    python scripts/compare_perplexity.py MODEL RESULTS DATA... [--documents N]

DATA are JSON lines (.jsonl, .jsonl.zst, .jsonl.gz) or folders of them, the same as were given to the command; the settings are read
from RESULTS. Needs torch and transformers (scripts/python-env.sh), and the program `zstd` for .zst. Ends with an error when the sum of any
document's log-probabilities differs by more than 1e-4 of it.
"""
import argparse
import gzip
import json
import math
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from measurement import record


def lines(path):
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-dc", path], check=True, capture_output=True).stdout.decode().split("\n")
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8").read().split("\n")
    return path.read_text(encoding="utf-8").split("\n")


def documents(data, settings):
    """(group, number, text) as the command reads them."""
    files = []
    for path in map(Path, data):
        files += sorted(p for p in path.iterdir() if ".jsonl" in p.name) if path.is_dir() else [path]
    numbers = defaultdict(int)
    limits = settings["limits"]
    for path in files:
        stem = path.name.split(".")[0]
        for line in filter(str.strip, lines(path)):
            row = json.loads(line)
            group = stem if settings["by"] == "file" else row.get("dataset") or stem
            if not row["text"] or limits["documents"] is not None and numbers[group] >= limits["documents"]:
                continue
            yield group, numbers[group], row["text"][: limits["characters"]]
            numbers[group] += 1


@torch.no_grad()
def nll(model, ids, context):
    """Minus the sum of log-probabilities of ids[1:], in windows of one context that overlap by half, every token once."""
    total, scored, start = 0.0, 0, 0
    while True:
        window = ids[start : start + context]
        logits = model(torch.tensor([window])).logits[0, :-1].float().log_softmax(-1)
        logprobs = logits.gather(1, torch.tensor(window[1:])[:, None])[:, 0].double()
        total -= logprobs[scored - start :].sum().item()
        scored = start + len(window) - 1
        if start + context >= len(ids):
            return total
        start += context // 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("results", type=Path)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--documents", type=int, help="compare only the first N documents of each group")
    parser.add_argument("--record", metavar="NAME", help="write what was found to docs/measurements/NAME.json")
    arguments = parser.parse_args()
    result = json.loads((arguments.results / "perplexity.json").read_text())
    scores = {}
    for line in (arguments.results / "perplexity.jsonl").read_text().splitlines():
        score = json.loads(line)
        scores[score["group"], score["number"]] = score
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32, attn_implementation="eager").eval()
    start = [tokenizer.convert_tokens_to_ids("<|start|>")] if result["settings"]["start"] else []
    ours, theirs, size = defaultdict(float), defaultdict(float), defaultdict(int)
    worst, compared = (0.0, None), set()
    for group, number, text in documents(arguments.data, result["settings"]):
        if arguments.documents is not None and number >= arguments.documents:
            continue
        ids = start + tokenizer(text, add_special_tokens=False).input_ids
        if len(ids) < 2:
            continue
        score = scores[group, number]
        if score["tokens"] != len(ids) - 1:
            sys.exit(f"{group} {number}: {score['tokens']} tokens, and transformers' tokenizer makes {len(ids) - 1}")
        value = nll(model, ids, result["context"])
        compared.add((group, number))
        worst = max(worst, (abs(value - score["nll"]) / value, f"{group} {number}"))
        ours[group] += score["nll"]
        theirs[group] += value
        size[group] += score["bytes"]
    rows = []
    for group in ours:
        bits = [x[group] / math.log(2) / size[group] for x in (ours, theirs)]
        print(f"{group}: {bits[0]:.6f} bits per byte, transformers {bits[1]:.6f}")
        rows.append(dict(group=group, bits_per_byte=bits[0], transformers=bits[1]))
        if arguments.documents is None:
            [whole] = [g["bits_per_byte"] for g in result["groups"] if g["name"] == group]
            rows[-1] |= dict(low=whole["low"], high=whole["high"])
    print(f"greatest difference of a document: {worst[0]:.2e} of its sum ({worst[1]})")
    if arguments.record:
        mean = {key: sum(row[key] for row in rows) / len(rows) for key in ("bits_per_byte", "transformers")}
        if arguments.documents is None:
            mean |= {key: result["mean_bits_per_byte"][key] for key in ("low", "high")}
        rows.append(dict(group="mean", **mean))
        record(arguments.record, dict(model=Path(arguments.model).name, rows=rows, greatest_difference=worst[0], documents=len(compared)))
    if worst[0] > 1e-4:
        sys.exit(1)


if __name__ == "__main__":
    main()
