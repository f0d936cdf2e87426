#!/usr/bin/env python3
"""Runs the tests of kl3m-data's layout against a real S3 server on loopback.

Needs `pip install 'moto[server]'`. Run from the repository root:  python scripts/test_s3.py
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request


def main() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(300):
            try:
                request = urllib.request.Request(f"{endpoint}/kl3m", method="PUT")
                urllib.request.urlopen(request, timeout=5).close()
                break
            except OSError:
                if server.poll() is not None:
                    print("the S3 server ended; is moto[server] installed?", file=sys.stderr)
                    return 1
                time.sleep(0.2)
        else:
            print("the S3 server does not answer", file=sys.stderr)
            return 1
        environment = os.environ | {
            "BLACKLETTER_TEST_S3": endpoint,
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1",
        }
        # With the program's features, so that nothing is compiled anew that `cargo build -p blackletter --features s3` has made.
        command = [
            "cargo", "test", "--release", "-p", "blackletter", "-p", "blackletter-corpus",
            "--features", "blackletter/s3,blackletter-corpus/s3", "--test", "s3",
        ]
        return subprocess.run(command, env=environment).returncode
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    sys.exit(main())
