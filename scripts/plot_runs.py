#!/usr/bin/env python3
"""Draw held-out loss of several runs over the time of their steps, and print the same as a table.

    python scripts/plot_runs.py --out FILE.svg METRICS.jsonl... [--record NAME [--machine TEXT]]

A run's name is that of its directory, or of its file where that is not metrics.jsonl. Needs nothing but Python.
"""
import argparse, json, pathlib, statistics

from measurement import record

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 420, 60, 50, 20, 150
COLORS = ["#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#cc79a7", "#009e73"]


def read(path):
    """Median seconds of a step, and (step, held-out loss) of each evaluation."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    seconds = statistics.median(r["seconds"] for r in records if r["kind"] == "step")
    return seconds, [(r["step"], r["all"]["loss"]) for r in records if r["kind"] == "evaluation"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", required=True)
    p.add_argument("metrics", nargs="+", type=pathlib.Path)
    p.add_argument("--record", metavar="NAME", help="write what was found to docs/measurements/NAME.json")
    p.add_argument("--machine", help="where the runs were made, if not here")
    a = p.parse_args()
    runs = {(m.parent.name if m.name == "metrics.jsonl" else m.stem): read(m) for m in a.metrics}
    ends = [seconds * points[-1][0] for seconds, points in runs.values()]
    losses = [loss for _, points in runs.values() for _, loss in points]
    low, high, end = min(losses) - 0.1, max(losses) + 0.1, max(ends)

    def x(seconds):
        return LEFT + seconds / end * (WIDTH - LEFT - RIGHT)

    def y(loss):
        return TOP + (high - loss) / (high - low) * (HEIGHT - TOP - BOTTOM)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for i in range(6):
        loss, seconds = low + (high - low) * i / 5, end * i / 5
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(loss):.1f}" y2="{y(loss):.1f}" stroke="#ddd"/>'
                   f'<text x="{LEFT - 8}" y="{y(loss) + 4:.1f}" text-anchor="end">{loss:.2f}</text>'
                   f'<text x="{x(seconds):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{seconds:.0f}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">seconds of training steps</text>'
               f'<text x="16" y="{HEIGHT / 2}" text-anchor="middle" transform="rotate(-90 16 {HEIGHT / 2})">held-out loss</text>')
    for i, (name, (seconds, points)) in enumerate(runs.items()):
        color = COLORS[i % len(COLORS)]
        line = " ".join(f"{x(step * seconds):.1f},{y(loss):.1f}" for step, loss in points)
        out.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>'
                   f'<text x="{WIDTH - RIGHT + 10}" y="{TOP + 16 + 18 * i}" fill="{color}">{name}</text>')
        print(f"| {name} | {seconds:.3f} | " + " | ".join(f"{loss:.3f}" for _, loss in points) + " |")
    if a.record:
        rows = [dict(run=name, step_s=seconds, held_out=[dict(step=step, loss=loss) for step, loss in points]) for name, (seconds, points) in runs.items()]
        record(a.record, rows, where=a.machine, source=a.metrics[-1])
    pathlib.Path(a.out).write_text("\n".join(out) + "\n</svg>\n")


if __name__ == "__main__":
    main()
