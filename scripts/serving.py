"""A server for the scripts beside this one: started on a free port, ended when done."""

import contextlib
import json
import os
import pathlib
import re
import subprocess
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = os.environ.get("BLACKLETTER", str(ROOT / "target/release/blackletter"))


@contextlib.contextmanager
def server(*arguments, model=str(ROOT / "models/tiny")):
    """Yields the server's address, such as http://127.0.0.1:40123."""
    command = [PROGRAM, "serve", "--port", "0", "--model", model, *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            found = re.search(r"serving on (http://\S+?)/?$", line.strip())
            if found:
                break
        else:
            raise SystemExit(f"the server did not start: {' '.join(command)}")
        yield found.group(1)
    finally:
        process.terminate()
        if process.wait(timeout=25) != 0:
            raise SystemExit(f"the server ended with {process.returncode} in place of 0")


def ask(address, path, body):
    """The answer to one request, as JSON."""
    request = urllib.request.Request(address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)
