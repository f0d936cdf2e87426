#!/usr/bin/env python3
"""Training steps of blackletter and of PyTorch with transformers, side by side.

    python scripts/bench_train.py --blackletter target/release/blackletter [--case small-4096] [--rounds 3] [--steps 5]

Each round runs every contestant once, one after the other, alone on the machine; medians over the rounds are printed, with
the ratio to the fastest PyTorch run of the same arithmetic. A step is forward, backward, clipping by norm and AdamW on random
tokens. PyTorch runs eager and grouped_mm experts, compiled or not, with SDPA and fused AdamW, and with
tcmalloc preloaded where it is found (without it too, with --plain-malloc). See scripts/python-env.sh for the environment.

    python scripts/bench_train.py --losses target/release/examples/train_losses --text FILES... --tokenizer tokenizer.json

compares losses instead (FILES are plain texts or .jsonl.zst with a field `text`): the same checkpoint, the same batches, 200 steps; ours in f32 and bf16, PyTorch with 1 and 2 threads and
with both kinds of experts.
"""
import argparse, glob, json, os, statistics, subprocess, sys, tempfile, time

from measurement import record

CASES = {
    "small-4096": dict(geometry="recipes/geometries/small.json", vocab=4096, batch=8, seq=512),
    "small-32768": dict(geometry="recipes/geometries/small.json", vocab=32768, batch=8, seq=512),
    "520m": dict(geometry="kl3m-002-520m", vocab=32768, batch=1, seq=1024),
}
BIG = dict(
    hidden_size=1024, intermediate_size=2048, num_hidden_layers=16, num_attention_heads=16, num_key_value_heads=8,
)
SMALL = dict(
    hidden_size=256, intermediate_size=512, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
)
RATE, BETAS, DECAY = 3e-4, (0.9, 0.95), 0.1


def config(big, vocab):
    from transformers import MixtralConfig

    return MixtralConfig(
        vocab_size=vocab, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=1024, sliding_window=256,
        rms_norm_eps=1e-5, tie_word_embeddings=False, bos_token_id=0, eos_token_id=1, pad_token_id=2,
        router_aux_loss_coef=0.02, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        **(BIG if big else SMALL),
    )


def torch_worker(a):
    """One PyTorch run in a process of its own; prints one JSON line."""
    import resource, torch
    from transformers import MixtralForCausalLM

    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    if a.checkpoint:
        model = MixtralForCausalLM.from_pretrained(
            a.checkpoint, dtype=torch.float32, attn_implementation="sdpa", experts_implementation=a.experts
        )
        model.config.use_cache = False
    else:
        cfg = config(a.big, a.vocab)
        cfg._attn_implementation, cfg._experts_implementation, cfg.use_cache = "sdpa", a.experts, False
        model = MixtralForCausalLM(cfg).float()
    model.train()
    forward = torch.compile(model) if a.compile else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=BETAS, weight_decay=DECAY, fused=True)
    if a.tokens:
        import numpy

        batches = torch.from_numpy(numpy.fromfile(a.tokens, dtype="<u4").astype("int64")).view(-1, a.batch, a.seq)
    else:
        shape = (a.steps + 1, a.batch, a.seq)
        batches = torch.randint(3, model.config.vocab_size, shape, generator=torch.Generator().manual_seed(1))
    times, losses = [], []
    for ids in batches:
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=a.dtype == "bf16"):
            out = forward(input_ids=ids, labels=ids, output_router_logits=True)
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - start)
        losses.append(float(out.loss.detach()))
        del out
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    rate = a.batch * a.seq / statistics.median(times[1:])
    print(json.dumps(dict(tokens_per_s=rate, peak_memory_bytes=peak, losses=losses)))


def run_torch(arguments, tcmalloc=None):
    env = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
    env.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    if tcmalloc:
        env["LD_PRELOAD"] = tcmalloc
    command = [sys.executable, os.path.abspath(__file__), "--torch-worker", *map(str, arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode != 0:
        print(f"torch failed: {' '.join(map(str, arguments))}\n{done.stderr[-800:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def bench(a):
    found = sorted(glob.glob("/usr/lib/*/libtcmalloc_minimal.so.4"))
    mallocs = ([("tcmalloc", found[0])] if found else []) + ([("malloc", None)] if a.plain_malloc or not found else [])
    found = []
    for name in a.case or CASES:
        case = CASES[name]
        results = {}
        for _ in range(a.rounds):
            for dtype in a.dtype:
                command = [a.blackletter, "bench", "train", "--geometry", case["geometry"], "--vocab", case["vocab"],
                           "--batch", case["batch"], "--seq", case["seq"], "--steps", a.steps, "--dtype", dtype]
                for label, more in [("blackletter", []), ("blackletter, recomputed", ["--recompute"])][: 2 if a.recompute else 1]:
                    done = subprocess.run([*map(str, command), *more], capture_output=True, text=True, check=True)
                    results.setdefault((label, dtype), []).append(json.loads(done.stdout))
                for malloc, path in mallocs:
                    for label in a.torch:
                        experts, *compiled = label.split("+")
                        arguments = ["--vocab", case["vocab"], "--batch", case["batch"], "--seq", case["seq"],
                                     "--steps", a.steps, "--dtype", dtype, "--experts", experts]
                        arguments += ["--big"] * (name == "520m") + ["--compile"] * bool(compiled)
                        one = run_torch(arguments, path)
                        if one:
                            results.setdefault((f"PyTorch {label}, {malloc}", dtype), []).append(one)
        print(f"\n{name}: {case['batch']} x {case['seq']}, vocabulary {case['vocab']}, {a.rounds} rounds of {a.steps} steps")
        medians = {k: statistics.median(r["tokens_per_s"] for r in v) for k, v in results.items()}
        for (who, dtype), runs in results.items():
            peers = [m for (other, d), m in medians.items() if d == dtype and other.startswith("PyTorch")]
            rates = [r["tokens_per_s"] for r in runs]
            ratio = f"{medians[who, dtype] / max(peers):5.2f} x" if peers and who == "blackletter" else ""
            memory = max(r["peak_memory_bytes"] for r in runs) / 2**30
            row = dict(case=name, dtype=dtype, who=who, tokens_per_s=medians[who, dtype], lowest=min(rates), highest=max(rates), memory_gib=memory)
            if "mfu" in runs[0]:
                row |= {key: statistics.median(r[key] for r in runs) for key in ("mfu", "gemm_gflops", "gradient_s", "update_s")}
            if ratio:
                row["ratio"] = medians[who, dtype] / max(peers)
            found.append(row)
            print(f"  {dtype:5} {who:34} {medians[who, dtype]:8.0f} tokens/s ({min(rates):.0f}-{max(rates):.0f})"
                  f"  {memory:5.2f} GiB {ratio}", flush=True)
    if a.record:
        record(a.record, dict(rounds=a.rounds, steps=a.steps, torch=version(), cases=[dict(name=name, **CASES[name]) for name in a.case or CASES], rows=found))


def version():
    from importlib.metadata import PackageNotFoundError, version

    try:
        return {name: version(name) for name in ("torch", "transformers")}
    except PackageNotFoundError:
        return None


def text(path):
    """A file's text, or that of the documents of a .jsonl.zst."""
    if not path.endswith(".jsonl.zst"):
        return open(path, encoding="utf-8", errors="replace").read()
    lines = subprocess.run(["zstd", "-dc", path], check=True, capture_output=True).stdout.splitlines()
    return "\n\n".join(json.loads(line)["text"] for line in lines)


def losses(a):
    """Mean absolute differences of losses over the same batches."""
    import numpy
    from tokenizers import Tokenizer
    from transformers import MixtralForCausalLM
    import torch

    tokenizer = Tokenizer.from_file(a.tokenizer)
    need = a.steps * a.batch * a.seq
    ids = []
    for path in a.text:
        ids += tokenizer.encode(text(path)[: 1 << 22], add_special_tokens=False).ids
        if len(ids) >= need:
            break
    if len(ids) < need:
        sys.exit(f"the text has {len(ids)} tokens, {need} are needed")
    with tempfile.TemporaryDirectory() as directory:
        tokens = os.path.join(directory, "tokens.bin")
        # Rows of one step come from places far apart, as in a shuffled stream.
        rows = numpy.array(ids[:need], dtype="<u4").reshape(-1, a.seq)
        rows[rows == 2] = 3
        numpy.random.default_rng(1).shuffle(rows)
        rows.tofile(tokens)
        torch.manual_seed(0)
        MixtralForCausalLM(config(False, tokenizer.get_vocab_size())).save_pretrained(directory)
        runs = {}
        for name, more in {"f32": [], "f32, 1 thread": ["--threads", "1"], "bf16": ["--bf16"]}.items():
            command = [a.losses, directory, tokens, str(a.batch), str(a.seq), *more]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            runs[f"blackletter {name}"] = [float(line) for line in out.split()]
        for dtype, experts, threads in [("f32", "eager", 2), ("f32", "eager", 1), ("f32", "grouped_mm", 2), ("bf16", "eager", 2)]:
            arguments = ["--checkpoint", directory, "--tokens", tokens, "--batch", a.batch, "--seq", a.seq,
                         "--experts", experts, "--threads", threads, "--dtype", dtype]
            runs[f"PyTorch {dtype}, {experts}, {threads} threads"] = run_torch(arguments)["losses"]
    print(f"{a.steps} steps of {a.batch} x {a.seq}, vocabulary {tokenizer.get_vocab_size()}")
    for name, values in runs.items():
        print(f"  {name:32} first {values[0]:.6f}, last {values[-1]:.6f}, mean of the last 20 {numpy.mean(values[-20:]):.6f}")
    names = list(runs)
    for i, one in enumerate(names):
        for other in names[i + 1:]:
            d = numpy.abs(numpy.array(runs[one]) - numpy.array(runs[other]))
            print(f"  |{one} - {other}|: mean {d.mean():.2e}, largest {d.max():.2e}, mean of the last 20 {d[-20:].mean():.2e}")
    if a.out:
        with open(a.out, "w") as file:
            json.dump(runs, file)
    if a.record:
        differences = []
        for i, one in enumerate(names):
            for other in names[i + 1:]:
                d = numpy.abs(numpy.array(runs[one]) - numpy.array(runs[other]))
                differences.append(dict(one=one, other=other, mean=float(d.mean()), largest=float(d.max())))
        ends = [dict(run=name, first=values[0], last_20=float(numpy.mean(values[-20:]))) for name, values in runs.items()]
        record(a.record, dict(steps=a.steps, batch=a.batch, seq=a.seq, vocab=tokenizer.get_vocab_size(), torch=version(), runs=ends, differences=differences))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--blackletter", default="target/release/blackletter")
    p.add_argument("--case", action="append", choices=list(CASES))
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--steps", type=int)
    p.add_argument("--dtype", nargs="+", default=None)
    p.add_argument("--torch", nargs="+", default=["eager", "grouped_mm", "eager+compile"], help="kinds of experts, +compile")
    p.add_argument("--plain-malloc", action="store_true")
    p.add_argument("--recompute", action="store_true", help="blackletter once more, making activations anew in the backward pass")
    p.add_argument("--losses", help="the example train_losses")
    p.add_argument("--text", nargs="+", default=[])
    p.add_argument("--tokenizer")
    p.add_argument("--out", help="write all losses there as JSON")
    p.add_argument("--record", metavar="NAME", help="write what was found to docs/measurements/NAME.json")
    p.add_argument("--batch", type=int, default=4)
    p.add_argument("--seq", type=int, default=256)
    for name, kind in [("vocab", int), ("experts", str), ("checkpoint", str), ("tokens", str)]:
        p.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    p.add_argument("--threads", type=int, default=2, help=argparse.SUPPRESS)
    for name in ["torch-worker", "big", "compile"]:
        p.add_argument(f"--{name}", action="store_true", help=argparse.SUPPRESS)
    a = p.parse_args()
    a.steps = a.steps or (200 if a.losses else 5)
    if a.torch_worker:
        a.dtype = (a.dtype or ["f32"])[0]
        return torch_worker(a)
    a.dtype = a.dtype or ["f32", "bf16"]
    losses(a) if a.losses else bench(a)


if __name__ == "__main__":
    main()
