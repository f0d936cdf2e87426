#!/usr/bin/env python3
"""What a training run took: its steps, tokens, minutes and rates, out of its metrics.

    python scripts/summarize_run.py RUN [--record NAME [--machine TEXT]]

Needs nothing but Python.
"""
import argparse, json, pathlib, statistics

from measurement import record


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("run", type=pathlib.Path)
    p.add_argument("--record", metavar="NAME", help="write what was found to docs/measurements/NAME.json")
    p.add_argument("--machine", help="where the run was made, if not here")
    a = p.parse_args()
    records = [json.loads(line) for line in (a.run / "metrics.jsonl").read_text().splitlines()]
    steps = [r for r in records if r["kind"] == "step"]
    rates = sorted(s["tokens_per_s"] for s in steps)
    seconds = sum(s["seconds"] for s in steps)
    held_out = [dict(step=r["step"], bits_per_byte=r["all"]["bits_per_byte"]) for r in records if r["kind"] == "evaluation"]
    found = dict(
        steps=len(steps), tokens=steps[-1]["tokens"], minutes=seconds / 60, tokens_per_s=steps[-1]["tokens"] / seconds,
        median_tokens_per_s=statistics.median(rates), best_tenth_tokens_per_s=rates[len(rates) * 9 // 10],
        mfu=statistics.median(s["mfu"] for s in steps), held_out=held_out,
    )
    print(json.dumps(found, indent=1))
    if a.record:
        record(a.record, found, where=a.machine, source=a.run / "metrics.jsonl")


if __name__ == "__main__":
    main()
