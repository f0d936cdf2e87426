#!/usr/bin/env python3
"""Training steps on a GPU, through CUDA and wgpu, beside PyTorch on the same card.

    python scripts/bench_gpu.py --out FOLDER [--torch-python PYTHON] [--record gpu]     # on a machine with an NVIDIA card
    python scripts/bench_gpu.py --from FOLDER --record gpu                              # only collect what was measured there

FOLDER gets the raw outputs: `bench train` as JSON, scripts/time_torch_gpu.py's lines, the card's name and driver. Needs a program built with
`--features cuda,wgpu`.
"""
import argparse, json, pathlib, subprocess

from measurement import record

CASES = {
    "small": ["--geometry", "recipes/geometries/small.json", "--vocab", "4096", "--batch", "8", "--seq", "512", "--steps", "10"],
    "520m": ["--geometry", "kl3m-002-520m", "--batch", "4", "--seq", "1024", "--steps", "5"],
}


def measure(a):
    a.out.mkdir(parents=True, exist_ok=True)
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    (a.out / "card.txt").write_text(subprocess.run(query, check=True, capture_output=True, text=True).stdout)
    for device in ("cuda", "wgpu"):
        for case, options in CASES.items():
            done = subprocess.run([a.blackletter, "bench", "train", *options, "--device", device], capture_output=True, text=True)
            if done.returncode == 0:
                (a.out / f"{device}-{case}.json").write_text(done.stdout)
            else:
                print(f"{device}, {case}: {done.stderr.strip()}")
    if a.torch_python:
        out = subprocess.run([a.torch_python, pathlib.Path(__file__).with_name("time_torch_gpu.py")], check=True, capture_output=True, text=True).stdout
        (a.out / "torch.jsonl").write_text("".join(line + "\n" for line in out.splitlines() if line.startswith("{")))


def collect(folder):
    ours, card = [], (folder / "card.txt").read_text().strip()
    for path in sorted(folder.glob("*-*.json")):
        device, case = path.stem.split("-")
        ours.append(dict(case=case, **{"device": device, **json.loads(path.read_text())}))
    torch = [json.loads(line) for line in (folder / "torch.jsonl").read_text().splitlines()] if (folder / "torch.jsonl").exists() else []
    return dict(ours=ours, torch=torch), card


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = p.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=pathlib.Path)
    where.add_argument("--from", dest="folder", type=pathlib.Path)
    p.add_argument("--torch-python")
    p.add_argument("--blackletter", default="target/release/blackletter")
    p.add_argument("--record", metavar="NAME", help="write what was found to docs/measurements/NAME.json")
    a = p.parse_args()
    if a.out:
        measure(a)
    found, card = collect(a.out or a.folder)
    print(json.dumps(found, indent=1))
    if a.record:
        record(a.record, found, where=card, source=(a.out or a.folder) / "card.txt")


if __name__ == "__main__":
    main()
