#!/usr/bin/env python3
"""Times the server beside llama.cpp's, on checkpoints of the same geometry: total tokens/s, and time to the first token.

Needs a built program, a model directory, and llama-server with a GGUF of the same model. Nothing else may run meanwhile.

    python scripts/bench_serving.py --model DIR --llama-server PATH --gguf FILE [--dtype q8] [--clients 1,4,16] [--tokens 64]

Clients ask one after the other, each for different texts, until all have asked `--requests` times; servers take turns, `--rounds`
times; medians are printed.
"""

import argparse
import concurrent.futures
import http.client
import json
import statistics
import subprocess
import time
import urllib.parse
import urllib.request

from serving import server

WORDS = "the parties agree that under this section a court may order notice to any person who holds the right title of land".split()


def one(address, number, tokens, extra):
    """(seconds to the first piece, seconds in all, tokens made)"""
    prompt = " ".join(WORDS[(number * 7 + i * (number % 5 + 1)) % len(WORDS)] for i in range(24))
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 1.0, "seed": number, "stream": True,
            "stream_options": {"include_usage": True}, **extra}
    place = urllib.parse.urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=600)
    start = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    first, made = None, 0
    for line in answer:
        if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
            continue
        event = json.loads(line[6:])
        made = (event.get("usage") or {}).get("completion_tokens") or made
        if event["choices"] and first is None:
            first = time.perf_counter() - start
    connection.close()
    return first, time.perf_counter() - start, made


def load(address, clients, requests, tokens, extra):
    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        done = list(pool.map(lambda n: one(address, n, tokens, extra), range(clients * requests)))
    took = time.perf_counter() - start
    made = sum(d[2] for d in done)
    assert made == clients * requests * tokens, (made, clients * requests * tokens)
    firsts = sorted(d[0] for d in done)
    return made / took, statistics.median(firsts), firsts[min(len(firsts) - 1, int(len(firsts) * 0.99))]


class Llama:
    """llama-server on its own port."""

    def __init__(self, program, gguf, slots, threads):
        self.address = "http://127.0.0.1:18099"
        command = [program, "-m", gguf, "--port", "18099", "--host", "127.0.0.1", "-t", str(threads), "-np", str(slots),
                   "-c", str(1024 * slots), "--no-webui"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self):
        for _ in range(600):
            try:
                urllib.request.urlopen(self.address + "/health", timeout=2).close()
                return self.address
            except OSError:
                time.sleep(0.1)
        raise SystemExit("llama-server does not answer")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", default="f32")
    parser.add_argument("--llama-server")
    parser.add_argument("--gguf")
    parser.add_argument("--clients", default="1,4,16")
    parser.add_argument("--requests", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    counts = [int(n) for n in options.clients.split(",")]
    # No text ends by itself, so that both make the same number of tokens.
    ours = {"logit_bias": {"1": -100}}
    theirs = {"ignore_eos": True, "cache_prompt": False}
    found = {}
    for _ in range(options.rounds):
        with server("--dtype", options.dtype, "--threads", str(options.threads), model=options.model) as address:
            one(address, 999, 4, ours)
            for clients in counts:
                found.setdefault(("blackletter", clients), []).append(load(address, clients, options.requests, options.tokens, ours))
        if options.llama_server:
            with Llama(options.llama_server, options.gguf, max(counts), options.threads) as address:
                one(address, 999, 4, theirs)
                for clients in counts:
                    found.setdefault(("llama-server", clients), []).append(load(address, clients, options.requests, options.tokens, theirs))
    print("| clients | blackletter tokens/s | llama-server | ratio | first token p50, p99 (s) | llama-server's |")
    print("|--:|--:|--:|--:|--:|--:|")
    for clients in counts:
        cells = []
        for name in ("blackletter", "llama-server"):
            rounds = found.get((name, clients))
            cells.append([statistics.median(r[i] for r in rounds) for i in range(3)] if rounds else None)
        ours_, theirs_ = cells
        peer = (f"{theirs_[0]:.1f}", f"{ours_[0] / theirs_[0]:.2f}", f"{theirs_[1]:.2f}, {theirs_[2]:.2f}") if theirs_ else ("", "", "")
        print(f"| {clients} | {ours_[0]:.1f} | {peer[0]} | {peer[1]} | {ours_[1]:.2f}, {ours_[2]:.2f} | {peer[2]} |")


if __name__ == "__main__":
    main()
