#!/usr/bin/env python3
"""Compare a run's TensorBoard events, as TensorBoard itself reads them, with its metrics.jsonl.

    python scripts/check_tensorboard.py RUN_DIR

Needs the package tensorboard. Exits with 1 when a value is missing or differs.
"""
import json
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

RUN = Path(sys.argv[1])


def main():
    events = EventAccumulator(str(RUN), size_guidance={"scalars": 0})
    events.Reload()
    read = {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
    values, wrong = 0, []
    for line in map(json.loads, (RUN / "metrics.jsonl").read_text().splitlines()):
        if line["kind"] == "step":
            pairs = [(f"train/{key}", line[key]) for key in ("loss", "rate", "gradient_norm", "tokens_per_s")]
        elif line["of"] == "weights":
            pairs = [(f"heldout/{name}/bits_per_byte", s["bits_per_byte"]) for name, s in line["datasets"].items()]
        else:
            continue
        for tag, expected in pairs:
            values += 1
            found = read.get(tag, {}).get(line["step"])
            if found is None or abs(found - expected) > 1e-5 * abs(expected):
                wrong.append(f"{tag} at step {line['step']}: {found}, expected {expected}")
    print(f"{values} values in {len(read)} curves, {len(wrong)} wrong")
    print("\n".join(wrong[:10]))
    sys.exit(1 if wrong or not values else 0)


main()
