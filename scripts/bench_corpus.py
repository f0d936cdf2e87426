#!/usr/bin/env python3
"""Time `blackletter corpus build` beside another pipeline over the same texts, one after the other.

    python scripts/bench_corpus.py --recipe recipes/shared.toml [--rounds 2] [--record corpus] [-- PEER COMMAND…]

The peer's command prints one line of JSON that has `mb_per_s` (10⁶ bytes of text a second), as a script that times datatrove does. Ours is
timed from start to end of the process, with its caches removed. Run it alone on the machine.
"""
import argparse
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import tempfile
import time

from measurement import record


def ours(args, scratch):
    shutil.rmtree(scratch, ignore_errors=True)
    start = time.perf_counter()
    subprocess.run([args.binary, "corpus", "build", args.recipe, "--out", scratch, "--threads", "2"], check=True, capture_output=True)
    seconds = time.perf_counter() - start
    return seconds, json.loads((pathlib.Path(scratch) / "report.json").read_text())["steps"]


def again(args, scratch):
    """Seconds of the same command with nothing changed, and of the audit of what it made."""
    times = []
    for command in (["build", args.recipe, "--out", scratch, "--threads", "2"], ["audit", scratch]):
        start = time.perf_counter()
        subprocess.run([args.binary, "corpus", *command], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--binary", default="target/release/blackletter")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--record", metavar="NAME", help="write what was found to docs/measurements/NAME.json")
    parser.add_argument("peer", nargs="*")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = [ours(args, os.path.join(folder, "corpus")) for _ in range(args.rounds)]
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
        unchanged, audit = again(args, os.path.join(folder, "corpus"))
    seconds, steps = statistics.median(run[0] for run in runs), runs[0][1]
    documents, size = steps[0]["in"], steps[0]["bytes_in"]
    rate = size / 1e6 / seconds
    steps = [{key: step[key] for key in ("name", "in", "kept")} for step in steps]
    found = dict(rounds=args.rounds, documents=documents, bytes=size, seconds=seconds, mb_per_s=rate, memory_mib=peak, steps=steps,
                 unchanged_s=unchanged, audit_s=audit)
    lines = [f"{documents} documents, {size / 1e6:.1f} MB of text; nothing changed {unchanged:.2f} s, audit {audit:.2f} s\n",
             "| | seconds | MB/s | most memory (MiB) |", "|---|--:|--:|--:|", f"| blackletter | {seconds:.1f} | {rate:.1f} | {peak:.0f} |"]
    if args.peer:
        out = subprocess.run(args.peer, capture_output=True, text=True, check=True).stdout
        peer = json.loads([line for line in out.splitlines() if line.startswith("{")][-1])
        found["peer"] = peer
        memory = peer.get("peak_child_gib")
        lines.append(f"| peer | {peer.get('seconds', '')} | {peer['mb_per_s']:.2f} | {'' if memory is None else round(memory * 1024)} |")
        lines.append(f"\n{rate / peer['mb_per_s']:.1f} × the peer's rate.")
    print("\n".join(lines))
    if args.record:
        record(args.record, found)


if __name__ == "__main__":
    main()
