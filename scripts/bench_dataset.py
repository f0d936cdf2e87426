#!/usr/bin/env python3
"""Time what makes a token store of a corpus: `tokenizer train`, `dataset sft`, `dataset build`, `dataset show`; the faster of two runs each.

    python scripts/bench_dataset.py --corpus CORPUS [--vocab-size 32768] [--record dataset]

Run it alone on the machine. Standard library only.
"""
import argparse, json, pathlib, subprocess, tempfile, time

from measurement import record


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--corpus", required=True)
    p.add_argument("--vocab-size", type=int, default=32768)
    p.add_argument("--binary", default="target/release/blackletter")
    p.add_argument("--record", metavar="NAME", help="write what was found to docs/measurements/NAME.json")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work, rows = pathlib.Path(folder), []

        def run(what, out, *command):
            times = []
            for number in (1, 2):
                to = ["--out", work / f"{out}{number}"] if out else []
                start = time.perf_counter()
                done = subprocess.run([a.binary, *command, *to], check=True, capture_output=True, text=True)
                times.append(time.perf_counter() - start)
            rows.append(dict(command=what, seconds=min(times)))
            print(f"{what}: {min(times):.2f} s", flush=True)
            return done.stdout

        run("tokenizer train", "tokenizer", "tokenizer", "train", "--corpus", a.corpus, "--recipe", "kl3m-001", "--vocab-size", str(a.vocab_size))
        run("dataset sft", "examples.jsonl", "dataset", "sft", "--corpus", a.corpus)
        run("dataset build", "store", "dataset", "build", "--corpus", a.corpus, "--tokenizer", work / "tokenizer1", "--sft", work / "examples.jsonl1")
        run("dataset show", None, "dataset", "show", "--row", "0", work / "store1")
        size = sum(f.stat().st_size for f in (work / "store1").rglob("*") if f.is_file())
        manifest = json.loads((work / "store1/manifest.json").read_text())
        with open(work / "examples.jsonl1") as file:
            examples = sum(1 for _ in file)
    found = dict(vocab_size=a.vocab_size, rows=rows, examples=examples, store_bytes=size, documents=manifest["corpus"]["documents"],
                 tokens=dict(text=manifest["train"]["total"]["tokens"] + manifest["heldout"]["total"]["tokens"], examples=manifest["sft"]["tokens"]))
    if a.record:
        record(a.record, found)


if __name__ == "__main__":
    main()
