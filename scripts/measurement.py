"""Records of measurements, docs/measurements/NAME.json: what was found, when, on what machine, by which command.

The pages under docs/ are made of them (`UPDATE_DOCS=1 cargo test --release --workspace --test documentation`). A script that measures
imports this file; one that is no Python calls it, with one JSON value, or one on each line, on standard input:

    … | python3 scripts/measurement.py NAME "COMMAND" [MACHINE]
"""
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "docs" / "measurements"
ZEN = {(23, 1): "Zen", (23, 49): "Zen 2", (25, 1): "Zen 3", (25, 17): "Zen 4", (26, 2): "Zen 5"}


def machine():
    """The processor and what of its instructions matters here, such as `AMD EPYC, Zen 5 (family 26, model 2), AVX-512 + VNNI + BF16, 2 cores`."""
    facts = {}
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    family, model = int(facts.get("cpu family", 0)), int(facts.get("model", 0))
    kind = f"{ZEN[family, model]} " if (family, model) in ZEN else ""
    flags = set(facts.get("flags", "").split())
    names = {"avx512f": "AVX-512", "avx512_vnni": "VNNI", "avx512_bf16": "BF16"}
    vectors = " + ".join(name for flag, name in names.items() if flag in flags) or ("AVX2" if "avx2" in flags else "no AVX2")
    return f"{facts.get('model name', 'unknown CPU')}, {kind}(family {family}, model {model}), {vectors}, {os.cpu_count()} cores"


def command(arguments):
    """The command as a reader may repeat it: of paths that begin at the root, the last part alone, in capitals."""
    def shown(word):
        name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if os.path.isabs(value) or value.startswith(".."):
            value = re.sub(r"[^A-Z0-9]+", "_", pathlib.Path(value).name.split(".")[0].upper()).strip("_")
        return name + equals + value
    words, arguments = [], iter(arguments)
    for word in arguments:
        if word in ("--binary", "--blackletter", "--keep"):  # which build of the program that was, and what is left behind
            next(arguments, None)
        else:
            words.append(shown(word))
    return " ".join(f"'{word}'" if re.search(r"[\s{}*]", word) else word for word in words)


def record(name, result, made_by=None, where=None, source=None):
    """Writes what was found under a name; where and when it was measured, if not here and now, `where` and the age of the file `source` say."""
    root = FOLDER.parent.parent
    commit = subprocess.run(["git", "-C", root, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True).stdout.strip()
    if made_by is None:
        script = pathlib.Path(sys.argv[0]).resolve()
        made_by = f"python {script.relative_to(root)} {command(sys.argv[1:])}".strip()
    found = dict(date=str(datetime.date.fromtimestamp(os.path.getmtime(source)) if source else datetime.date.today()), machine=where or machine(), commit=commit, command=made_by, result=result)
    if source:
        del found["commit"]  # raw outputs may be older than what is checked out
    FOLDER.mkdir(parents=True, exist_ok=True)
    target = FOLDER / f"{name}.json"
    part = target.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    part.replace(target)
    print(f"recorded {target.relative_to(root)}", file=sys.stderr)


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    text = sys.stdin.read()
    try:
        result = json.loads(text)
    except json.JSONDecodeError:
        result = [json.loads(line) for line in text.splitlines() if line.strip()]
    record(sys.argv[1], result, sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None)


if __name__ == "__main__":
    main()
