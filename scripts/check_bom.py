#!/usr/bin/env python3
"""Check bills of materials against the schemas of those who made the forms.

    blackletter bom --model MODEL --format cyclonedx --out nano.cdx.json
    blackletter bom --model MODEL --format spdx --out nano.spdx.json
    python scripts/check_bom.py nano.cdx.json nano.spdx.json

Needs `pip install 'cyclonedx-python-lib[json-validation]' spdx3-validate`; the latter fetches SPDX's model, and without a network is told to
the extent that it can be checked. Ends with an error when a bill is not valid.
"""
import subprocess
import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator


def main():
    cyclonedx, spdx = map(Path, sys.argv[1:3])
    error = JsonStrictValidator(SchemaVersion.V1_7).validate_str(cyclonedx.read_text())
    if error is not None:
        sys.exit(f"{cyclonedx}: {error}")
    print(f"{cyclonedx}: valid CycloneDX 1.7")
    ended = subprocess.run([Path(sys.executable).parent / "spdx3-validate", "--json", spdx], capture_output=True, text=True)
    print(ended.stdout + ended.stderr)
    if ended.returncode != 0:
        sys.exit(f"{spdx}: not valid SPDX 3.0.1")
    print(f"{spdx}: valid SPDX 3.0.1")


if __name__ == "__main__":
    main()
