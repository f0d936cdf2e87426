#!/usr/bin/env python3
"""Make the small random checkpoints in crates/model/tests/goldens, with loss and gradients as transformers has them.

    python scripts/make_gradient_goldens.py [OUT_DIR]

Needs torch, transformers, safetensors and numpy (see scripts/python-env.sh). Eager attention, float32, one thread, fixed
seeds. Each directory holds a model, `batch.safetensors`, `gradients.safetensors` and `golden.json` (loss, cross_entropy,
aux_loss).
"""
import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import MixtralConfig, MixtralForCausalLM

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1] / "crates/model/tests/goldens")

BASE = dict(
    vocab_size=61, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4, head_dim=8,
    num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=128, sliding_window=9,
    rms_norm_eps=1e-5, tie_word_embeddings=False, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    initializer_range=0.3, router_aux_loss_coef=0.05,
)

CASES = {
    "gqa-window": dict(),
    "no-window": dict(sliding_window=None, num_key_value_heads=1),
    "top-1": dict(num_experts_per_tok=1),
    "top-3": dict(num_experts_per_tok=3, num_local_experts=5, num_key_value_heads=4),
    "tied": dict(tie_word_embeddings=True),
    "odd-sizes": dict(vocab_size=37, hidden_size=18, intermediate_size=23, num_attention_heads=3, num_key_value_heads=1,
                      head_dim=6, sliding_window=33, num_hidden_layers=3),
}


def case(name, changes):
    torch.manual_seed(sum(map(ord, name)))
    generator = torch.Generator().manual_seed(5)
    config = MixtralConfig(**{**BASE, **changes})
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    config.output_router_logits = True
    model = MixtralForCausalLM(config).train()
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "norm" in key:  # weights of 1 would hide mistakes
                p.add_(0.3 * torch.randn(p.shape, generator=generator))
    where = OUT / name
    where.mkdir(parents=True, exist_ok=True)
    for old in where.iterdir():
        old.unlink()
    model.save_pretrained(where)
    (where / "generation_config.json").unlink(missing_ok=True)
    rows, length = 3, 45
    ids = torch.randint(3, config.vocab_size, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, :13], mask[2, :4], mask[2, 38:] = 0, 0, 0
    ids[mask == 0] = 2
    labels = ids.clone()
    # The first token of row 1 keeps its label: the padding before it predicts it, as in plain transformers.
    labels[mask == 0], labels[0, :10], labels[2, :6] = -100, -100, -100
    save_file(dict(padded_input_ids=ids, attention_mask=mask, labels=labels), where / "batch.safetensors")
    out = model(ids, attention_mask=mask, labels=labels, output_router_logits=True, use_cache=False)
    out.loss.backward()
    # The names on disk, and the experts apart: what save_pretrained makes of the weights, it makes of the gradients.
    with torch.no_grad():
        gradients = MixtralForCausalLM(config)
        for (_, p), (_, g) in zip(model.named_parameters(), gradients.named_parameters()):
            g.copy_(p.grad)
    gradients.save_pretrained(where / "gradients")
    (where / "gradients" / "model.safetensors").rename(where / "gradients.safetensors")
    for left in (where / "gradients").iterdir():
        left.unlink()
    (where / "gradients").rmdir()
    aux = out.aux_loss.item()
    golden = dict(loss=out.loss.item(), cross_entropy=out.loss.item() - config.router_aux_loss_coef * aux, aux_loss=aux,
                  made_with=dict(transformers=transformers.__version__, torch=torch.__version__.split("+")[0]))
    (where / "golden.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, changes in CASES.items():
        case(name, changes)
        print(name)
