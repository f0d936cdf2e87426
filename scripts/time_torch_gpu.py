#!/usr/bin/env python3
"""Training steps of PyTorch with transformers on a GPU, for the figures beside `blackletter bench train --device wgpu|cuda`.

    python scripts/time_torch_gpu.py

Forward, backward, clipping by norm and fused AdamW on random tokens, with SDPA, eager and grouped_mm experts, in TF32 and in bf16 autocast. Prints one JSON
line a case: median tokens/s of ten steps after three, and the most memory of the card.
"""
import json, statistics, time

import torch
from transformers import MixtralConfig, MixtralForCausalLM

SMALL = dict(vocab_size=4096, hidden_size=256, intermediate_size=512, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2)
BIG = dict(vocab_size=32768, hidden_size=1024, intermediate_size=2048, num_hidden_layers=16, num_attention_heads=16, num_key_value_heads=8)
CASES = {"small-4096": (SMALL, 8, 512), "520m": (BIG, 4, 1024)}


def measure(geometry, batch, seq, experts, bf16):
    config = MixtralConfig(
        num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=1024, sliding_window=256, router_aux_loss_coef=0.02, **geometry
    )
    config._attn_implementation, config._experts_implementation, config.use_cache = "sdpa", experts, False
    torch.manual_seed(0)
    model = MixtralForCausalLM(config).float().cuda().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(13):
        ids = torch.randint(3, config.vocab_size, (batch, seq), device="cuda")
        torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            loss = model(input_ids=ids, labels=ids, output_router_logits=True).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return round(batch * seq / statistics.median(times[3:])), round(torch.cuda.max_memory_allocated() / 2**30, 2)


def main():
    torch.backends.cuda.matmul.allow_tf32 = True
    print(torch.cuda.get_device_name(), torch.__version__)
    for name, (geometry, batch, seq) in CASES.items():
        for experts in ("eager", "grouped_mm"):
            for bf16 in (False, True):
                rate, memory = measure(geometry, batch, seq, experts, bf16)
                print(json.dumps(dict(
                    case=name, batch=batch, seq=seq, experts=experts, dtype="bf16" if bf16 else "tf32", tokens_per_s=rate, memory_gib=memory
                )), flush=True)
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
