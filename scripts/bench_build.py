#!/usr/bin/env python3
"""Time the README's first build from nothing: a fresh clone, an empty target folder, every crate downloaded before.

    python scripts/bench_build.py [--record build] [--keep DIR]

Runs `cargo build --release --timings` and reads cargo's own report. Run it alone on the machine; it takes some ten minutes on two cores.
"""
import argparse, json, pathlib, re, subprocess, tempfile, time

from measurement import FOLDER, record

ROOT = FOLDER.parent.parent


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--record", metavar="NAME", help="write what was found to docs/measurements/NAME.json")
    p.add_argument("--keep", metavar="DIR", type=pathlib.Path, help="clone to this new folder, and leave what was built there")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clone = a.keep or pathlib.Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        subprocess.run(["cargo", "fetch", "--quiet", "--locked"], cwd=clone, check=True)
        start = time.perf_counter()
        subprocess.run(["cargo", "build", "--release", "--locked", "--timings", "--quiet", "--target-dir", clone / "target"], cwd=clone, check=True)
        seconds = time.perf_counter() - start
        page = (clone / "target/cargo-timings/cargo-timing.html").read_text()
    units = json.loads(re.search(r"const UNIT_DATA = (\[.*?\]);", page, re.S).group(1))
    crates = {}
    for unit in units:
        crates[unit["name"]] = crates.get(unit["name"], 0) + unit["duration"]
    dearest = sorted(crates.items(), key=lambda c: -c[1])[:9]
    found = dict(seconds=seconds, units=len(units), work_s=sum(unit["duration"] for unit in units),
                 dearest=[dict(crate=name, seconds=round(took, 1)) for name, took in dearest])
    print(json.dumps(found, indent=1))
    if a.record:
        record(a.record, found)


if __name__ == "__main__":
    main()
