#!/usr/bin/env python3
"""Measures `blackletter extract` on held-out examples: exact match, and F1 of fields, beside the model's answers without a schema.

    python scripts/evaluate_extract.py EXAMPLES.jsonl [--model DIR] [--limit 100] [--record extract]

EXAMPLES are lines as `blackletter dataset sft` writes them; those of kind `extract_json` are used. A schema is made of the fields that an
example asks for: lists of texts for parties and amounts, a text or null for others. Both answers are the most likely ones, and both
are judged as `blackletter eval sft` judges: a field is a place in the value with what stands there, F1 is over all fields of all
examples. Prints a table; needs a built program.
"""

import argparse
import collections
import json
import pathlib
import subprocess
import tempfile

from measurement import record
from serving import PROGRAM

LISTS = {"parties", "amounts"}


def schema(fields):
    text, texts = {"type": ["string", "null"]}, {"type": "array", "items": {"type": "string"}}
    return {"type": "object", "properties": {f: texts if f in LISTS else text for f in fields}, "required": list(fields), "additionalProperties": False}


def leaves(value, path=""):
    """Every place of a value with what stands there; an empty object or list stands for itself."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}")
    elif isinstance(value, list) and value:
        for inner in value:
            yield from leaves(inner, f"{path}[]")
    else:
        yield path, json.dumps(value.strip() if isinstance(value, str) else value)


def judge(pairs):
    """Exact match and F1 of (right, given)."""
    exact, both, all_ = 0, 0, 0
    for right, given in pairs:
        exact += right == given
        a, b = collections.Counter(leaves(right)), collections.Counter(leaves(given) if isinstance(given, (dict, list)) else ())
        both += sum((a & b).values())
        all_ += sum(a.values()) + sum(b.values())
    return exact / len(pairs), 2 * both / all_


def lines(command):
    done = subprocess.run([PROGRAM, *command], stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def extracted(model, examples, work):
    """What `extract` makes of each example's input: one call for each question."""
    groups = collections.defaultdict(list)
    for number, example in enumerate(examples):
        groups[example["instruction"], tuple(json.loads(example["output"]))].append(number)
        (work / f"{number}.txt").write_text(example["input"])
    values = {}
    for (instruction, fields), numbers in groups.items():
        (work / "schema.json").write_text(json.dumps(schema(fields)))
        files = [str(work / f"{number}.txt") for number in numbers]
        for line in lines(["extract", *model, "--schema", str(work / "schema.json"), "--instructions", instruction, *files]):
            values[int(pathlib.Path(line["file"]).stem)] = line["value"]
    return [values.get(number) for number in range(len(examples))]


def answered(model, examples, work):
    """The model's answers without a schema."""
    (work / "examples.jsonl").write_text("".join(json.dumps(example) + "\n" for example in examples))
    out = work / "eval"
    command = ["eval", "sft", *model, str(work / "examples.jsonl"), "--resamples", "0", "--out", str(out)]
    subprocess.run([PROGRAM, *command], stdout=subprocess.DEVNULL, check=True)
    [path] = out.glob("**/sft.jsonl")
    values = []
    for line in path.read_text().splitlines():
        try:
            values.append(json.loads(json.loads(line)["answer"]))
        except ValueError:
            values.append(None)
    return values


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("examples")
    parser.add_argument("--model")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--record", metavar="NAME", help="write what was found to docs/measurements/NAME.json")
    options = parser.parse_args()
    with open(options.examples) as file:
        examples = [e for e in map(json.loads, file) if e["kind"] == "extract_json"][: options.limit]
    model = ["--model", options.model] if options.model else []
    right = [json.loads(e["output"]) for e in examples]
    with tempfile.TemporaryDirectory() as work:
        rows = {"extract": extracted(model, examples, pathlib.Path(work)), "without a schema": answered(model, examples, pathlib.Path(work))}
    names = [f for f in ("title", "citation", "date", "parties", "amounts") if any(f in r for r in right)]
    print(f"| {len(examples)} examples | exact match % | F1 % |" + "".join(f" {name} |" for name in names))
    print("|---|--:|--:|" + "--:|" * len(names))
    found = []
    for name, given in rows.items():
        exact, f1 = judge(list(zip(right, given)))
        by_field = []
        found.append(dict(answers=name, exact=exact, f1=f1))
        for field in names:
            pairs = [({field: r[field]}, {field: g[field]} if isinstance(g, dict) and field in g else None) for r, g in zip(right, given) if field in r]
            by_field.append(f" {100 * judge(pairs)[1]:.1f} |")
        print(f"| {name} | {100 * exact:.1f} | {100 * f1:.1f} |" + "".join(by_field))
    if options.record:
        record(options.record, dict(examples=len(examples), rows=found))


if __name__ == "__main__":
    main()
