#!/usr/bin/env python3
"""Times the server beside llama.cpp's, on checkpoints of the same geometry: tokens made per second by all clients together, and
time to the first token.

Needs a built program, a model directory, and llama-server with a GGUF of the same model in the same form. Nothing else may run
meanwhile.

    python scripts/bench_serving.py --model DIR --dtype q8 --llama-server PATH --gguf FILE [--clients 1,4,16] [--tokens 32]

Each client asks `--requests` times, one request after the other, each for a continuation of a text of its own; both servers are
asked the same. Servers take turns, `--rounds` times, each started anew and asked once before; medians over the rounds are printed.

`of the bound` is what the server reaches of what the machine allows: prompts at the multiply-add rate, and steps in which each of the
distinct weights is read once at the read bandwidth, as `blackletter bench generate` measures them before the first round and after
the last.
"""

import argparse
import concurrent.futures
import http.client
import json
import pathlib
import random
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request

from measurement import record
from serving import PROGRAM, server

WORDS = "the parties agree that under this section a court may order notice to any person who holds the right title of land".split()


def prompt(number):
    """A text that no other request begins with."""
    chosen = random.Random(number)
    return " ".join(chosen.choice(WORDS) for _ in range(24))


def one(address, number, tokens, extra):
    """(seconds to the first piece, tokens of the prompt, tokens made)"""
    body = {"prompt": prompt(number), "max_tokens": tokens, "temperature": 1.0, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "seed": number,
            "stream": True, "stream_options": {"include_usage": True}, **extra}
    place = urllib.parse.urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=600)
    start = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(f"{address} answers {answer.status}: {answer.read().decode()}")
    first, read, made = None, 0, 0
    for line in answer:
        if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
            continue
        event = json.loads(line[6:])
        usage = event.get("usage") or {}
        read, made = usage.get("prompt_tokens") or read, usage.get("completion_tokens") or made
        if event["choices"] and first is None:
            first = time.perf_counter() - start
    connection.close()
    return first, read, made


def load(address, clients, requests, tokens, extra):
    """Tokens made per second, time to the first token (median, 99 of 100), tokens of a prompt."""
    # Numbers are never used twice on one server: nothing is known before it is asked.
    numbers = range(clients * 1000, clients * 1000 + clients * requests)
    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        done = list(pool.map(lambda number: one(address, number, tokens, extra), numbers))
    took = time.perf_counter() - start
    made = sum(d[2] for d in done)
    if made != clients * requests * tokens:
        raise SystemExit(f"{address} made {made} tokens in place of {clients * requests * tokens}")
    firsts = sorted(d[0] for d in done)
    return made / took, statistics.median(firsts), firsts[min(len(firsts) - 1, int(len(firsts) * 0.99))], statistics.mean(d[1] for d in done)


class Llama:
    """llama-server on a free port: a slot and a whole context for each client, and no page."""

    def __init__(self, program, gguf, slots, threads, context):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self.log = tempfile.TemporaryFile()
        command = [program, "-m", gguf, "--port", str(port), "--host", "127.0.0.1", "-t", str(threads), "-tb", str(threads), "-np", str(slots),
                   "-c", str(context * slots), "--no-webui"]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)

    def __enter__(self):
        for _ in range(1200):
            if self.process.poll() is not None:
                break
            try:
                urllib.request.urlopen(self.address + "/health", timeout=2).close()
                return self.address
            except OSError:
                time.sleep(0.1)
        self.__exit__()
        self.log.seek(0)
        raise SystemExit("llama-server does not answer:\n" + self.log.read().decode(errors="replace")[-2000:])

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def machine(options, batch):
    """Seconds that the machine takes at least: for a token of a prompt, and for a step of a batch."""
    command = [PROGRAM, "bench", "generate", "--model", options.model, "--dtype", options.dtype, "--threads", str(options.threads),
               "--prompt", "128", "--gen", "16", "--runs", "1", "--batch", str(batch)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    # What was reached, by what share of the machine's rate that is.
    step = batch / found["batch_decode_tokens_per_s"] * found["batch_read_fraction"]
    return found["prefill_gemm_fraction"] / found["prefill_tokens_per_s"], step, found["read_gb_per_s"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a model directory with a tokenizer, or one without and --tokenizer")
    parser.add_argument("--tokenizer", help="a directory whose tokenizer files are used beside the model's weights")
    parser.add_argument("--dtype", default="f32")
    parser.add_argument("--llama-server")
    parser.add_argument("--gguf", help="the same model in the same form as --dtype")
    parser.add_argument("--clients", default="1,4,16")
    parser.add_argument("--requests", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--record", metavar="NAME", help="write what was found to docs/measurements/NAME.json")
    options = parser.parse_args()
    if bool(options.llama_server) != bool(options.gguf):
        parser.error("--llama-server and --gguf go together")
    with tempfile.TemporaryDirectory() as both:
        if options.tokenizer:
            for part in [*pathlib.Path(options.model).resolve().iterdir(), *pathlib.Path(options.tokenizer).resolve().glob("tokenizer*.json")]:
                target = pathlib.Path(both) / part.name
                if not target.exists():
                    target.symlink_to(part)
            options.model = both
        run(options)


def run(options):
    counts = [int(n) for n in options.clients.split(",")]
    context = json.loads((pathlib.Path(options.model) / "config.json").read_text())["max_position_embeddings"]
    # No text ends by itself, so that both make the same number of tokens.
    ours, theirs = {"logit_bias": {"1": -100}}, {"ignore_eos": True, "cache_prompt": False}
    found, bounds = {}, {}

    def bound():
        for clients in counts:
            bounds.setdefault(clients, []).append(machine(options, clients))

    started = time.perf_counter()
    bound()
    for _ in range(options.rounds):
        slots = ["--max-concurrent", str(max(counts))]
        with server("--dtype", options.dtype, "--threads", str(options.threads), *slots, model=options.model) as address:
            one(address, 0, 4, ours)
            for clients in counts:
                found.setdefault(("blackletter", clients), []).append(load(address, clients, options.requests, options.tokens, ours))
        if options.llama_server:
            with Llama(options.llama_server, options.gguf, max(counts), options.threads, context) as address:
                one(address, 0, 4, theirs)
                for clients in counts:
                    found.setdefault(("llama-server", clients), []).append(load(address, clients, options.requests, options.tokens, theirs))
    bound()
    bandwidth = statistics.median(b[2] for rounds in bounds.values() for b in rounds)
    print(f"{options.dtype}, {options.threads} threads, {options.requests} requests of {options.tokens} tokens a client, medians of "
          f"{options.rounds} rounds; reads at {bandwidth:.1f} GB/s; {(time.perf_counter() - started) / 60:.1f} minutes\n")
    print("| clients | tokens/s | of the bound | llama-server's tokens/s | ratio | first token p50, p99 (s) | llama-server's |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    rows = []
    for clients in counts:
        cells = []
        for name in ("blackletter", "llama-server"):
            rounds = found.get((name, clients))
            cells.append([statistics.median(r[i] for r in rounds) for i in range(4)] if rounds else None)
        own, peer = cells
        token, step = (statistics.median(b[i] for b in bounds[clients]) for i in range(2))
        # A wave of one request a client: all prompts, then the steps after the first token.
        least = clients * own[3] * token + (options.tokens - 1) * step
        most = clients * options.tokens / least
        beside = (f"{peer[0]:.1f}", f"{own[0] / peer[0]:.2f}", f"{peer[1]:.2f}, {peer[2]:.2f}") if peer else ("", "", "")
        print(f"| {clients} | {own[0]:.1f} | {own[0] / most:.0%} of {most:.1f} | {beside[0]} | {beside[1]} | {own[1]:.2f}, {own[2]:.2f} | {beside[2]} |")
        row = dict(clients=clients, bound=most)
        for name, cell in (("blackletter", own), ("llama_server", peer)):
            if cell:
                row[name] = dict(tokens_per_s=cell[0], first_token_p50_s=cell[1], first_token_p99_s=cell[2])
        rows.append(row)
    if options.record:
        facts = {key: getattr(options, key) for key in ("dtype", "requests", "tokens", "rounds", "threads")}
        record(options.record, dict(read_gb_per_s=bandwidth, rows=rows, **facts))


if __name__ == "__main__":
    main()
