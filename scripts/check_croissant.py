#!/usr/bin/env python3
"""Check a corpus' croissant.json with ML Commons' own library.

    python scripts/check_croissant.py CORPUS_DIR

Needs `mlcroissant` (pip install mlcroissant). Ends with an error when the description is not valid, or names a shard wrongly.
"""
import hashlib
import sys
from pathlib import Path

import mlcroissant


def main():
    folder = Path(sys.argv[1])
    dataset = mlcroissant.Dataset(jsonld=folder / "croissant.json")
    files = [d for d in dataset.metadata.distribution if getattr(d, "content_url", None) and getattr(d, "sha256", None)]
    for file in files:
        path = folder / file.content_url
        if hashlib.sha256(path.read_bytes()).hexdigest() != file.sha256:
            sys.exit(f"{path} does not have the hash that croissant.json states")
    print(f"valid: {dataset.metadata.name}, {len(files)} files with their hashes, "
          f"{len(dataset.metadata.record_sets)} record sets, {len(dataset.metadata.ctx.issues.warnings)} warnings")


if __name__ == "__main__":
    main()
