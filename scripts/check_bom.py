#!/usr/bin/env python3
"""Check bills of materials against the schemas of those who made the forms.

    blackletter bom --model MODEL --format cyclonedx --out nano.cdx.json
    blackletter bom --model MODEL --format spdx --out nano.spdx.json
    python scripts/check_bom.py nano.cdx.json nano.spdx.json

Needs `pip install 'cyclonedx-python-lib[json-validation]' spdx-python-model spdx3-validate`. The SPDX bill is read and written again with SPDX's own
bindings, which are generated from its model and check types, values and numbers of properties; then `spdx3-validate` checks schema and shapes, for
which it fetches them from spdx.org: where that cannot be reached, this says so. Ends with an error when a bill is not valid.
"""
import io
import subprocess
import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from spdx_python_model import v3_0_1 as model


def main():
    cyclonedx, spdx = map(Path, sys.argv[1:3])
    error = JsonStrictValidator(SchemaVersion.V1_7).validate_str(cyclonedx.read_text())
    if error is not None:
        sys.exit(f"{cyclonedx}: {error}")
    print(f"{cyclonedx}: valid CycloneDX 1.7")
    objects = model.SHACLObjectSet()
    with spdx.open("rb") as file:
        model.JSONLDDeserializer().read(file, objects)
    missing = objects.link()
    if missing:
        sys.exit(f"{spdx}: these elements are named and not there: {missing}")
    model.JSONLDSerializer().write(objects, io.BytesIO())
    print(f"{spdx}: {len(objects.objects)} objects conform to the bindings of SPDX 3.0.1")
    ended = subprocess.run([Path(sys.executable).parent / "spdx3-validate", "--json", spdx], capture_output=True, text=True)
    said = ended.stdout + ended.stderr
    if "urlopen error" in said or "Unable to load" in said:
        print("spdx3-validate cannot fetch SPDX's schema and shapes here: not checked with it")
        return
    print(said)
    if ended.returncode != 0:
        sys.exit(f"{spdx}: not valid SPDX 3.0.1")
    print(f"{spdx}: valid SPDX 3.0.1")


if __name__ == "__main__":
    main()
