#!/usr/bin/env python3
"""Time `blackletter trace` over texts of 100 tokens: from the training data, from elsewhere, and of its words in another order.

    python scripts/bench_trace.py --index INDEX [--other texts.jsonl] [--runs 20] [--binary target/release/blackletter]

A run is the whole command: the program starts, maps the index, loads the tokenizer, searches, and prints JSON. Texts from the training
data are cut at random places of its documents (their ids stand in the index), those from elsewhere from the field `text` of
`--other`, such as documents that were held out. Run it alone on the machine. Standard library only.
"""
import argparse
import array
import json
import pathlib
import random
import statistics
import subprocess
import time

from measurement import record

TOKENS = 100


def decode(args, ids):
    command = [args.binary, "tokenizer", "decode", "--tokenizer", args.index]
    return subprocess.run(command, input=json.dumps(ids), check=True, capture_output=True, text=True).stdout.rstrip("\n")


def encode(args, text):
    command = [args.binary, "tokenizer", "encode", "--tokenizer", args.index]
    return json.loads(subprocess.run(command, input=text, check=True, capture_output=True, text=True).stdout)


def from_index(args, manifest):
    """Ids of passages at random places of documents that are long enough."""
    folder, width = pathlib.Path(args.index), 4 if manifest["wide"] else 2
    starts = array.array("Q")
    starts.frombytes((folder / "starts.bin").read_bytes())
    ends = list(starts[1:]) + [manifest["tokens"]]
    long = [(start, end - 1) for start, end in zip(starts, ends) if end - 1 - start >= TOKENS]
    with open(folder / "tokens.bin", "rb") as file:
        while True:
            start, end = random.choice(long)
            place = random.randint(start, end - TOKENS)
            file.seek(place * width)
            ids = array.array("I" if width == 4 else "H")
            ids.frombytes(file.read(TOKENS * width))
            yield ids.tolist()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", required=True)
    parser.add_argument("--other")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--binary", default="target/release/blackletter")
    parser.add_argument("--record", metavar="NAME", help="write what was found to docs/measurements/NAME.json")
    args = parser.parse_args()
    random.seed(1)
    manifest = json.loads((pathlib.Path(args.index) / "index.json").read_text())
    passages = from_index(args, manifest)
    inside = [decode(args, next(passages)) for _ in range(args.runs)]
    shuffled = []
    for text in inside:
        words = text.split()
        random.shuffle(words)
        shuffled.append(" ".join(words))
    kinds = {"training data": inside, "its words shuffled": shuffled}
    if args.other:
        with open(args.other) as file:
            texts = [json.loads(line)["text"] for line in file]
        texts = random.sample([text for text in texts if len(text) > 2000], args.runs)
        kinds["elsewhere"] = [decode(args, encode(args, text[1000:3000])[:TOKENS]) for text in texts]
    print(f"index of {manifest['tokens'] / 1e6:.1f} M tokens, {manifest['documents']} documents; {args.runs} texts of {TOKENS} tokens each")
    rows = []
    for kind, texts in kinds.items():
        seconds, covered, tokens = [], 0, 0
        for text in texts:
            command = [args.binary, "trace", "--index", args.index, "--json", "--file", "-"]
            start = time.perf_counter()
            made = subprocess.run(command, input=text, check=True, capture_output=True, text=True).stdout
            seconds.append(time.perf_counter() - start)
            found = json.loads(made)
            covered, tokens = covered + found["covered"], tokens + found["tokens"]
        median, most = 1e3 * statistics.median(seconds), 1e3 * max(seconds)
        print(f"{kind}: median {median:.0f} ms, most {most:.0f} ms; {100 * covered / tokens:.0f} % of the tokens in spans of the training data")
        rows.append(dict(kind=kind, median_ms=median, most_ms=most, first_ms=1e3 * seconds[0], covered=covered / tokens))
    if args.record:
        record(args.record, dict(tokens=manifest["tokens"], documents=manifest["documents"], texts=args.runs, length=TOKENS, rows=rows))


if __name__ == "__main__":
    main()
