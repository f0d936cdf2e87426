#!/usr/bin/env python3
"""Make crates/kernels/tests/topk_ties.txt: which of equal values torch.topk takes on a CPU.

    python scripts/make_topk_goldens.py

A line is `k | values | the places taken, ascending`. Needs torch (see scripts/python-env.sh).
"""
import random
from pathlib import Path

import torch

OUT = Path(__file__).parents[1] / "crates/kernels/tests/topk_ties.txt"


def main():
    random.seed(7)
    cases = [(k, [0] * n) for n in (2, 3, 4, 8, 16, 64) for k in (1, 2, 3) if k <= n]
    for _ in range(300):
        n = random.choice([2, 3, 4, 4, 4, 5, 8, 8, 8, 16, 60])
        cases.append((random.randint(1, min(n, 8)), [random.randint(0, 3) for _ in range(n)]))
    with open(OUT, "w") as out:
        out.write(f"# torch {torch.__version__.split('+')[0]}, made by scripts/make_topk_goldens.py\n")
        for k, values in cases:
            # As the router does: float32 probabilities, one row a token.
            chosen = torch.topk(torch.softmax(torch.tensor([values], dtype=torch.float32), dim=-1), k, dim=-1).indices[0]
            out.write(f"{k} | {' '.join(map(str, values))} | {' '.join(map(str, sorted(chosen.tolist())))}\n")


if __name__ == "__main__":
    main()
