#!/usr/bin/env python3
"""Compare an exported model with transformers: log-probabilities of tokens, and the chat template.

    python scripts/check_export.py MODEL_DIR [BLACKLETTER]      # RECORD=NAME: write what was found to docs/measurements/NAME.json

Needs torch and transformers (see scripts/python-env.sh) and the built command (default: target/release/blackletter). Loads
MODEL_DIR as transformers does, widens the weights to float32, and compares with `blackletter score`. Exits with 1 on a
difference above 1e-4.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from measurement import record

MODEL = Path(sys.argv[1])
COMMAND = sys.argv[2] if len(sys.argv) > 2 else str(Path(__file__).parents[1] / "target/release/blackletter")
TEXT = (
    "Under this Agreement, the Borrower shall pay to the Lender the principal sum of $100,000, together with interest at the "
    "rate of 5 percent per annum. (a) In general.—No person shall be deprived of life, liberty, or property."
)


def main():
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32, attn_implementation="eager").eval()
    ids = tokenizer(TEXT, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(ids).logits[0].double()
    expected = torch.log_softmax(logits, -1)[:-1].gather(1, ids[0, 1:, None])[:, 0]
    out = subprocess.run(
        [COMMAND, "score", "--model", str(MODEL), "--ids", ",".join(map(str, ids[0].tolist()))],
        check=True, capture_output=True, text=True,
    )
    found = torch.tensor(json.loads(out.stdout)["token_logprobs"], dtype=torch.float64)
    worst = (found - expected).abs().max().item()
    messages = [{"role": "user", "content": "What does “person” mean?"}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    shape = prompt == "<|start|>What does “person” mean?<|sep|>"
    print(f"{ids.shape[1]} tokens, largest difference of log-probabilities {worst:.2e}; chat template {'as it should be' if shape else repr(prompt)}")
    if os.environ.get("RECORD"):
        record(os.environ["RECORD"], dict(tokens=ids.shape[1], largest_difference=worst))
    sys.exit(0 if worst < 1e-4 and shape else 1)


main()
