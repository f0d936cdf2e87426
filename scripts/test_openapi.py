#!/usr/bin/env python3
"""Sends what schemathesis makes of the server's own OpenAPI document, and fails when an answer is not as described.

Needs `pip install schemathesis` and a built program. From the repository root:  python scripts/test_openapi.py [schemathesis options]
"""

import pathlib
import subprocess
import sys

from serving import server


def main():
    program = pathlib.Path(sys.executable).parent / "schemathesis"
    # Few tokens, so that the time goes into requests.
    with server("--max-request-tokens", "2000") as address:
        # What a schema cannot say may be refused: a regular expression or grammar that is none, several constraints at once.
        exclude = ["--exclude-checks", "positive_data_acceptance"]
        command = [str(program), "run", f"{address}/openapi.json", "--workers", "2", *exclude, *sys.argv[1:]]
        return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(main())
