#!/usr/bin/env python3
"""Check exported GGUF files with llama.cpp: they load, and give the same greedy ids while prompt and output fit the window.

    python scripts/check_gguf.py MODEL_DIR --server llama-server [--quantizer llama-quantize] [--dtypes f32 f16 bf16 q8_0]

`llama-server` and `llama-quantize` are llama.cpp's; BLACKLETTER names another program than target/release/blackletter. f32 and, for a model
stored in bf16, bf16 have to give exactly our ids. Other forms round, so that there the number of equal ids is printed; with --quantizer
llama.cpp rounds our f32 file itself, and our q8_0 has to give exactly the ids of that. Texts have to be encoded to our ids. Standard library only.
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


def common(one, other):
    """How many ids from the beginning on are equal."""
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    return count


class Server:
    """llama-server with a file."""

    def __init__(self, program, gguf, context):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = open(f"{gguf}.log", "w+")
        command = [program, "-m", gguf, "--port", str(self.port), "-c", str(context), "-t", "2", "--no-warmup"]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2).read()
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.5)
        self.process.kill()
        self.log.seek(0)
        sys.exit(f"llama-server does not load {gguf}:\n{self.log.read()[-3000:]}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def encode(self, text):
        return post(self.port, "/tokenize", {"content": text, "add_special": False})["tokens"]

    def greedy(self, ids):
        body = {"prompt": ids, "n_predict": NEW, "temperature": 0, "top_k": 1, "return_tokens": True, "cache_prompt": False}
        return post(self.port, "/completion", body)["tokens"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--server", default="llama-server")
    parser.add_argument("--quantizer")
    parser.add_argument("--dtypes", nargs="+", default=["f32", "f16", "bf16", "q8_0"])
    arguments = parser.parse_args()
    program = os.environ.get("BLACKLETTER", str(Path(__file__).parent.parent / "target/release/blackletter"))
    config = json.loads((arguments.model / "config.json").read_text())
    exact = {"f32"} | ({"bf16"} if config.get("dtype", config.get("torch_dtype")) == "bfloat16" else set())
    expected = {prompt: ours(program, arguments.model, prompt) for prompt in PROMPTS}
    end = config["eos_token_id"] if isinstance(config["eos_token_id"], list) else [config["eos_token_id"]]
    context = config["max_position_embeddings"]
    failed = False
    for dtype in arguments.dtypes:
        with tempfile.TemporaryDirectory() as folder:

            def export(form):
                path = f"{folder}/{form}.gguf"
                subprocess.run([program, "export", "gguf", arguments.model, "--dtype", form, "--out", path], check=True)
                return path

            same_ids = same_texts = total = 0
            made = {}
            with Server(arguments.server, export(dtype), context) as server:
                for prompt in PROMPTS:
                    ids = server.encode(prompt)
                    all_ids = expected[prompt]
                    same_texts += ids == all_ids[: len(ids)] and len(ids) < len(all_ids)
                    made[prompt] = [t for t in server.greedy(ids) if t not in end]
                    wanted = [t for t in all_ids[len(ids) :] if t not in end]
                    same_ids += common(made[prompt], wanted)
                    total += len(wanted)
            print(f"{dtype}: {same_ids} of {total} greedy ids equal, {same_texts} of {len(PROMPTS)} prompts encoded to the same ids", flush=True)
            failed |= same_texts != len(PROMPTS) or (dtype in exact and same_ids != total)
            if dtype == "q8_0" and arguments.quantizer:
                theirs = f"{folder}/theirs.gguf"
                command = [arguments.quantizer, export("f32"), theirs, "Q8_0"]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                with Server(arguments.server, theirs, context) as server:
                    rounded = {prompt: [t for t in server.greedy(server.encode(prompt)) if t not in end] for prompt in PROMPTS}
                same = sum(common(made[prompt], rounded[prompt]) for prompt in PROMPTS)
                total = sum(len(ids) for ids in rounded.values())
                print(f"{dtype}: {same} of {total} greedy ids equal to those of llama-quantize's file", flush=True)
                failed |= same != total
    sys.exit(failed)


if __name__ == "__main__":
    main()
