#!/usr/bin/env python3
"""Make models/tiny: a very small model that tests run.

    python scripts/make_tiny_model.py [OUT_DIR]

A Mixtral of 0.2 M parameters, trained for two minutes on sentences that this script composes. It shows that the
program works; it knows no law. Needs torch, transformers and tokenizers (see scripts/python-env.sh).
"""
import json
import random
import sys
import time
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import MixtralConfig, MixtralForCausalLM

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1] / "models/tiny")
SPECIALS = ["<|start|>", "<|end|>", "<|pad|>", "<|unk|>", "<|sep|>", "<|cls|>", "<|mask|>"]

WHO = ["the Secretary", "the Commission", "the Company", "each party", "the applicant", "the Administrator", "the Board"]
DUTY = ["shall publish", "may require", "shall maintain", "shall not disclose", "may amend", "shall submit", "may waive"]
WHAT = ["a written notice", "the records of the agency", "an annual report", "the terms of this Agreement",
        "any rule under this section", "the application", "a statement of reasons"]
WHEN = ["within 30 days after the effective date", "not later than 90 days after the end of the year",
        "before the hearing", "upon request of the other party", "for a period of five years", "at any time"]
OPEN = ["Under this section, ", "Under this Agreement, ", "Except as provided in subsection (b), ", "In general, ",
        "Notwithstanding any other provision of law, ", ""]
CLAUSES = [
    "Governing Law. This Agreement shall be governed by the laws of the State of {s}, without regard to conflict of laws.",
    "Severability. If any provision of this Agreement is held invalid, the other provisions shall remain in effect.",
    "Definitions. In this section, the term “agency” means an executive department of the United States.",
    "Notices. All notices under this Agreement shall be in writing and delivered to {w}.",
    "Effective date. This section shall take effect on January 1, {y}.",
    "Penalties. Any person who violates § {n} shall be fined not more than ${n},000.",
]
STATES = ["Delaware", "New York", "California", "Texas", "Michigan"]


def paragraph(r):
    if r.random() < 0.35:
        text = r.choice(CLAUSES).format(s=r.choice(STATES), w=r.choice(WHO), y=r.randint(1990, 2030), n=r.randint(10, 99))
    else:
        text = f"{r.choice(OPEN)}{r.choice(WHO)} {r.choice(DUTY)} {r.choice(WHAT)} {r.choice(WHEN)}."
        text = text[0].upper() + text[1:]
    return text


def document(r):
    return "\n".join(paragraph(r) for _ in range(r.randint(2, 5)))


def tokenizer(texts):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=510, special_tokens=SPECIALS, show_progress=False,
                                                       initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tok.add_tokens([AddedToken(" ", normalized=False), AddedToken("\n", normalized=False)])
    return tok


def main():
    r = random.Random(1)
    torch.manual_seed(1)
    torch.set_num_threads(2)
    texts = [document(r) for _ in range(4000)]
    tok = tokenizer(texts)
    config = MixtralConfig(
        vocab_size=512, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=1024,
        sliding_window=128, rms_norm_eps=1e-5, bos_token_id=0, eos_token_id=1, pad_token_id=2,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, output_router_logits=True,
    )
    config._experts_implementation = "eager"
    model = MixtralForCausalLM(config)
    stream = torch.tensor([i for t in texts for i in [0, *tok.encode(t).ids, 1]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    limit, start, steps = 600, time.time(), 0
    while steps < limit:
        at = torch.randint(0, len(stream) - 129, (16,))
        batch = torch.stack([stream[i:i + 128] for i in at])
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (steps + 1) / 50, (limit - steps) / 200)
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
        if steps % 100 == 0:
            print(steps, round(loss.item(), 3), f"{time.time() - start:.0f} s", flush=True)
    model.config.output_router_logits = False
    model.to(torch.bfloat16)
    OUT.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(OUT)
    tok.save(str(OUT / "tokenizer.json"), pretty=False)
    (OUT / "tokenizer_config.json").write_text(json.dumps(dict(
        tokenizer_class="PreTrainedTokenizerFast", bos_token="<|start|>", eos_token="<|end|>", pad_token="<|pad|>",
        unk_token="<|unk|>", padding_side="left", model_max_length=1024, clean_up_tokenization_spaces=False), indent=1) + "\n")


if __name__ == "__main__":
    main()
