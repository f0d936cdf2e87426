#!/usr/bin/env python3
"""Check exported GGUF files with llama.cpp: they load, and give the same greedy ids while prompt and output fit the window.

    python scripts/check_gguf.py MODEL_DIR --server llama-server [--dtypes f32 f16 bf16 q8_0]

`llama-server` is llama.cpp's; BLACKLETTER names another program than target/release/blackletter. f32 and, for a model stored in bf16, bf16 and f16 have
to give exactly our ids; q8_0 rounds, so that there the number of equal ids is printed. Also compares ids of texts. Standard library only.
"""
import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

PROMPTS = ["Under this", "Governing Law.", "The Secretary shall prescribe", "Section 1. Definitions.", "It is unlawful for any person to"]
NEW = 48


def post(port, path, body):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read())


def ours(program, model, prompt):
    command = [program, "generate", prompt, "--model", model, "--greedy", "--max-new-tokens", str(NEW), "--format", "ids"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--server", default="llama-server")
    parser.add_argument("--dtypes", nargs="+", default=["f32", "f16", "bf16", "q8_0"])
    arguments = parser.parse_args()
    program = os.environ.get("BLACKLETTER", str(Path(__file__).parent.parent / "target/release/blackletter"))
    config = json.loads((arguments.model / "config.json").read_text())
    exact = {"f32"} | ({"bf16"} if config.get("dtype", config.get("torch_dtype")) == "bfloat16" else set())
    expected = {prompt: ours(program, arguments.model, prompt) for prompt in PROMPTS}
    end = config["eos_token_id"] if isinstance(config["eos_token_id"], list) else [config["eos_token_id"]]
    failed = False
    for dtype in arguments.dtypes:
        with tempfile.TemporaryDirectory() as folder:
            gguf = f"{folder}/model.gguf"
            subprocess.run([program, "export", "gguf", arguments.model, "--dtype", dtype, "--out", gguf], check=True)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            command = [arguments.server, "-m", gguf, "--port", str(port), "-c", str(config["max_position_embeddings"]), "-t", "2", "--no-warmup"]
            log = open(f"{folder}/log", "w+")
            server = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                for _ in range(120):
                    try:
                        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).read()
                        break
                    except OSError:
                        if server.poll() is not None:
                            log.seek(0)
                            sys.exit(f"llama-server does not load {dtype}:\n{log.read()[-3000:]}")
                        time.sleep(0.5)
                same_ids = same_texts = total = 0
                for prompt in PROMPTS:
                    theirs = post(port, "/tokenize", {"content": prompt, "add_special": False})["tokens"]
                    all_ids = expected[prompt]
                    same_texts += theirs == all_ids[: len(theirs)] and len(theirs) < len(all_ids)
                    body = {"prompt": theirs, "n_predict": NEW, "temperature": 0, "top_k": 1, "return_tokens": True, "cache_prompt": False}
                    made = post(port, "/completion", body)["tokens"]
                    wanted = [t for t in all_ids[len(theirs) :] if t not in end]
                    made = [t for t in made if t not in end]
                    common = 0
                    while common < min(len(made), len(wanted)) and made[common] == wanted[common]:
                        common += 1
                    same_ids += common
                    total += len(wanted)
                print(f"{dtype}: {same_ids} of {total} greedy ids equal, {same_texts} of {len(PROMPTS)} prompts encoded to the same ids", flush=True)
                failed |= dtype in exact and same_ids != total
            finally:
                server.terminate()
                server.wait()
    sys.exit(failed)


if __name__ == "__main__":
    main()
