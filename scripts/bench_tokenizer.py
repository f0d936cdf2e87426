#!/usr/bin/env python3
"""Encoding rate beside Python's `tokenizers`, same documents, same threads, padding off; medians of interleaved runs.

  python scripts/bench_tokenizer.py TOKENIZER_DIR DOCUMENTS.jsonl.zst... [--threads 2] [--rounds 3] [--megabytes 40]

Needs `pip install tokenizers zstandard`.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from measurement import record


def documents(paths: list[str], limit: int) -> list[str]:
    import zstandard

    texts, size = [], 0
    share = limit // len(paths)
    for path in paths:
        size = 0
        with open(path, "rb") as file:
            stream = zstandard.ZstdDecompressor().stream_reader(file) if path.endswith(".zst") else file
            for line in io.TextIOWrapper(stream, encoding="utf-8"):
                texts.append(json.loads(line)["text"])
                size += len(texts[-1].encode())
                if size >= share:
                    break
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer")
    parser.add_argument("documents", nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=40)
    parser.add_argument("--record", metavar="NAME", help="write what was found to docs/measurements/NAME.json")
    args = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(args.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    from tokenizers import Tokenizer

    peer = Tokenizer.from_file(str(Path(args.tokenizer) / "tokenizer.json"))
    peer.no_padding()
    texts = documents(args.documents, args.megabytes * 1_000_000)
    megabytes = sum(len(t.encode()) for t in texts) / 1e6
    bench = ["cargo", "bench", "--quiet", "-p", "blackletter-tokenizer", "--bench", "encode", "--"]
    rates: dict[str, list[float]] = {"python": [], "python encode_batch_fast": [], "fast": [], "parts": []}
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "documents.jsonl"
        plain.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
        for _ in range(args.rounds):
            for name, encode in (("python", peer.encode_batch), ("python encode_batch_fast", peer.encode_batch_fast)):
                started = time.perf_counter()
                peer_tokens = sum(len(e.ids) for e in encode(texts))
                rates[name].append(megabytes / (time.perf_counter() - started))
            for kind in ("fast", "parts"):
                command = bench + [str(Path(args.tokenizer).resolve()), str(plain), kind]
                row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                assert row["tokens"] == peer_tokens, (kind, row["tokens"], peer_tokens)
                assert row["threads"] == args.threads
                rates[kind].append(row["mb_per_s"])
    medians = {name: round(statistics.median(values), 2) for name, values in rates.items()}
    best = max(medians["python"], medians["python encode_batch_fast"])
    found = {
        "megabytes": round(megabytes, 1), "documents": len(texts), "threads": args.threads, "mb_per_s": medians,
        "ratio_to_fastest_python": round(medians["fast"] / best, 2),
        "rounds": args.rounds,
    }
    print(json.dumps(found, indent=1))
    if args.record:
        record(args.record, found)


if __name__ == "__main__":
    main()
