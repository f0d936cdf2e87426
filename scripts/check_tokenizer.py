#!/usr/bin/env python3
"""Ids equal Python's `tokenizers`; a trained tokenizer loads in transformers unchanged.

  python scripts/check_tokenizer.py TOKENIZER_DIR DOCUMENTS.jsonl.zst... [--documents 10000] [--trained DIR]

Runs target/release/blackletter over documents and awkward strings and compares every id. With --trained it also loads
the tokenizer in DIR with `tokenizers` and with transformers, compares ids again, and decodes. Needs
`pip install tokenizers transformers zstandard`.
"""

import argparse
import io
import json
import os
import subprocess
import sys
from pathlib import Path

from measurement import record

BINARY = os.environ.get("BLACKLETTER", "target/release/blackletter")
AWKWARD = [
    "", " ", "\0", "a\0\0b", " " * 600, "\n" * 556, "\r\n" * 40, "\t" * 9 + " ", "=" * 30, "a" * 100_000, "9" * 5_000,
    "<|end|>", "x<|start|>y<|pad|> <|end", "<|<|end|>|>", "don't 'sunk we'll THEY'LL", "§ 12 — “x” ½Ⅷ٣",
    "👩‍👩‍👧‍👦🇺🇸e\u0301\u200d\ufeff\u0085\u2028\u180e\u3000", "中文 עברית ไทย", "Ġ Ċ Ń", "\U0010ffff\ue000\ufffd",
    '{"a":"b","c":null}', "<!-- <TABLE></TABLE> --> href=", "(a)(ii)(IX)(9)(10)", "17761776 2049 2050 641642",
    "".join(chr(c) for c in range(0x20, 0x3000)),
]


def documents(paths: list[str], limit: int) -> list[str]:
    import zstandard

    texts: list[str] = []
    for n, path in enumerate(paths, 1):
        with open(path, "rb") as file:
            stream = zstandard.ZstdDecompressor().stream_reader(file) if path.endswith(".zst") else file
            for line in io.TextIOWrapper(stream, encoding="utf-8"):
                if len(texts) >= limit * n // len(paths):
                    break
                texts.append(json.loads(line)["text"])
    return texts


def ours(tokenizer: str, texts: list[str], parse: bool) -> list[list[int]]:
    lines = "".join(json.dumps({"text": t}) + "\n" for t in texts)
    command = [BINARY, "tokenizer", "encode", "--tokenizer", tokenizer, "--jsonl"] + ["--parse-special"] * parse
    run = subprocess.run(command, input=lines.encode(), stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in run.stdout.decode().splitlines()]


def compare(directory: str, texts: list[str]) -> int:
    from tokenizers import Tokenizer

    peer = Tokenizer.from_file(str(Path(directory) / "tokenizer.json"))
    peer.no_padding()
    total = 0
    for parse in (False, True):
        peer.encode_special_tokens = not parse
        found = ours(directory, texts, parse)
        assert len(found) == len(texts), (len(found), len(texts))
        for n, text in enumerate(texts):
            expected = peer.encode(text).ids
            if found[n] != expected:
                at = next((i for i, (a, b) in enumerate(zip(found[n], expected)) if a != b), "the end")
                sys.exit(f"text {n} {text[:60]!r}: ids differ at {at} (special tokens parsed: {parse})")
            total += len(expected)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer")
    parser.add_argument("documents", nargs="+")
    parser.add_argument("--documents", dest="count", type=int, default=10_000)
    parser.add_argument("--trained")
    parser.add_argument("--record", metavar="NAME", help="write what was found to docs/measurements/NAME.json")
    args = parser.parse_args()
    texts = documents(args.documents, args.count) + AWKWARD
    equal = compare(args.tokenizer, texts)
    print(f"{args.tokenizer}: {equal} ids of {len(texts)} texts equal, with and without special tokens")
    if args.record:
        record(args.record, dict(ids=equal, texts=len(texts)))
    if not args.trained:
        return
    some = texts[:: max(1, len(texts) // 1000)] + AWKWARD
    print(f"{args.trained}: {compare(args.trained, some)} ids of {len(some)} texts equal")
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(args.trained)
    assert loaded.is_fast and loaded.padding_side == "left"
    names = ("bos", "eos", "pad", "unk", "sep", "cls", "mask")
    assert [getattr(loaded, f"{name}_token_id") for name in names] == list(range(7))
    assert len(loaded) & (len(loaded) - 1) == 0, len(loaded)
    for text, ids in zip(some, ours(args.trained, some, True)):
        assert loaded(text)["input_ids"] == ids, text[:60]
        assert loaded.decode(ids, clean_up_tokenization_spaces=False) == text, text[:60]
    batch = loaded(["Under this", "x"], padding=True)
    assert batch["input_ids"][1][0] == 2 and batch["attention_mask"][1][0] == 0
    print(f"{args.trained}: transformers loads it ({type(loaded).__name__}, {len(loaded)} entries), same ids, decodes to the text")


if __name__ == "__main__":
    main()
