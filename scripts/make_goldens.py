#!/usr/bin/env python3
"""Make the small random checkpoints in crates/engine/tests/goldens, and what transformers makes of them.

    python scripts/make_goldens.py [OUT_DIR]

Needs torch, transformers, safetensors and numpy (see scripts/python-env.sh). Eager attention, float32 arithmetic on
the stored weights, one thread, fixed seeds: the same files whenever the versions are the same.
"""
import json
import math
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import MixtralConfig, MixtralForCausalLM
from transformers.generation import logits_process as lp

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1] / "crates/engine/tests/goldens")

BASE = dict(
    vocab_size=160, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=128, sliding_window=16,
    rms_norm_eps=1e-5, tie_word_embeddings=False, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    initializer_range=0.25,
)

# name: (changes to the geometry, stored dtype, largest shard, write rope_theta beside the rest)
CASES = {
    "gqa-window": (dict(), torch.float32, "1GB", True),
    "eight-experts": (dict(num_local_experts=8, num_experts_per_tok=3, num_attention_heads=2, num_key_value_heads=2,
                           rope_parameters={"rope_type": "default", "rope_theta": 500.0}), torch.float32, "1GB", False),
    "no-window": (dict(num_key_value_heads=1, sliding_window=None), torch.float32, "1GB", False),
    "tied": (dict(tie_word_embeddings=True), torch.float32, "1GB", False),
    "bf16-sharded": (dict(), torch.bfloat16, "16KB", False),
    "one-expert": (dict(num_experts_per_tok=1), torch.float32, "1GB", True),
    "f16-odd-sizes": (dict(vocab_size=101, hidden_size=40, intermediate_size=72, head_dim=12, num_attention_heads=3,
                           num_key_value_heads=1, sliding_window=9), torch.float16, "1GB", False),
}


def checkpoint(name, changes, dtype, shard, old_rope):
    torch.manual_seed(sum(map(ord, name)))
    generator = torch.Generator().manual_seed(7)
    config = MixtralConfig(**{**BASE, **changes})
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    model = MixtralForCausalLM(config).eval()
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "norm" in key:  # weights of 1 would hide mistakes
                p.add_(0.3 * torch.randn(p.shape, generator=generator))
        model.to(dtype)
    where = OUT / name
    where.mkdir(parents=True, exist_ok=True)
    for old in where.iterdir():
        old.unlink()
    model.save_pretrained(where, max_shard_size=shard)
    (where / "generation_config.json").unlink(missing_ok=True)
    if old_rope:
        path = where / "config.json"
        value = json.loads(path.read_text())
        value["rope_theta"] = value.pop("rope_parameters")["rope_theta"]
        value["torch_dtype"] = value.pop("dtype", "float32")
        path.write_text(json.dumps(value, indent=2) + "\n")
    # Loaded anew: casting a model back and forth would round its rotary frequencies too.
    model = MixtralForCausalLM.from_pretrained(where, dtype=torch.float32, attn_implementation="eager",
                                               experts_implementation="eager").eval()
    vocab = config.vocab_size
    ids = torch.randint(3, vocab, (1, 70), generator=generator)
    tensors = {"input_ids": ids}
    with torch.no_grad():
        logits = model(ids, use_cache=False).logits
        tensors["logits"] = logits.contiguous()
        log_probabilities = torch.log_softmax(logits[:, :-1], -1)
        tensors["token_logprobs"] = log_probabilities.gather(-1, ids[:, 1:, None])[..., 0].contiguous()
        if name == "gqa-window":
            padded = torch.randint(3, vocab, (2, 40), generator=generator)
            mask = torch.ones_like(padded)
            padded[1, :11], mask[1, :11] = 2, 0
            # A plain forward counts positions from the left edge, padding included.
            tensors.update(padded_input_ids=padded, attention_mask=mask,
                           padded_logits=model(padded, attention_mask=mask, use_cache=False).logits.contiguous())
        prompt = ids[:, :20]
        out = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=40,
                             min_new_tokens=40, eos_token_id=None, pad_token_id=2)
    save_file(tensors, where / "golden.safetensors")
    golden = dict(greedy_prompt=prompt[0].tolist(), greedy_ids=out[0].tolist(),
                  made_with=dict(transformers=transformers.__version__, torch=torch.__version__.split("+")[0]))
    (where / "golden.json").write_text(json.dumps(golden) + "\n")


def sampling():
    generator = torch.Generator().manual_seed(3)
    logits = [
        (3 * torch.randn(64, generator=generator)).tolist(),
        (0.3 * torch.randn(64, generator=generator)).tolist(),
        torch.round(2 * torch.randn(64, generator=generator)).tolist(),  # many ties
    ]
    options = [
        dict(), dict(temperature=0.5), dict(temperature=2.0), dict(top_k=1), dict(top_k=5), dict(top_k=50), dict(top_k=64),
        dict(top_p=0.9), dict(top_p=0.1), dict(min_p=0.05), dict(min_p=0.9), dict(typical_p=0.2), dict(typical_p=0.9),
        dict(repetition_penalty=1.3), dict(repetition_penalty=0.8), dict(no_repeat_ngram_size=2), dict(no_repeat_ngram_size=1),
        dict(temperature=0.7, top_k=20, top_p=0.8), dict(temperature=1.5, top_k=30, top_p=0.95, min_p=0.02, typical_p=0.95),
        dict(repetition_penalty=1.2, no_repeat_ngram_size=3, temperature=0.9, top_k=40, top_p=0.9),
    ]
    history = [5, 9, 5, 9, 12, 5, 9, 63, 0, 5]
    cases = []
    for which, row in enumerate(logits):
        for o in options:
            chain = []
            if "repetition_penalty" in o:
                chain.append(lp.RepetitionPenaltyLogitsProcessor(o["repetition_penalty"]))
            if "no_repeat_ngram_size" in o:
                chain.append(lp.NoRepeatNGramLogitsProcessor(o["no_repeat_ngram_size"]))
            if "temperature" in o:
                chain.append(lp.TemperatureLogitsWarper(o["temperature"]))
            if "top_k" in o:
                chain.append(lp.TopKLogitsWarper(o["top_k"]))
            if "top_p" in o:
                # Among equal logits at the edge torch's sort decides which goes: not a definition to compare with.
                if which == 2:
                    continue
                chain.append(lp.TopPLogitsWarper(o["top_p"]))
            if "min_p" in o:
                chain.append(lp.MinPLogitsWarper(o["min_p"]))
            if "typical_p" in o:
                chain.append(lp.TypicalLogitsWarper(o["typical_p"]))
            scores = torch.tensor([row])
            for step in chain:
                scores = step(torch.tensor([history]), scores)
            expected = [None if math.isinf(x) else x for x in scores[0].tolist()]
            cases.append(dict(logits=which, options=o, history=history, expected=expected))
    rounded = [[float(torch.tensor(x)) for x in row] for row in logits]
    (OUT / "sampling.json").write_text(json.dumps(dict(logits=rounded, cases=cases)) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    for name, case in CASES.items():
        checkpoint(name, *case)
        print(name)
    sampling()
