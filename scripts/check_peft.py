#!/usr/bin/env python3
"""Adapters both ways: one that was trained here is loaded by peft, one that peft makes is loaded here; log-probabilities are compared.

    python scripts/check_peft.py MODEL_DIR ADAPTER_DIR [BLACKLETTER]      # RECORD=NAME: write what was found to docs/measurements/NAME.json

Needs torch, transformers and peft (see scripts/python-env.sh) and the built command (default: target/release/blackletter).
ADAPTER_DIR is the folder `adapter` of a run of `blackletter finetune`. Exits with 1 on a difference above 1e-4.
"""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import peft
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from measurement import record

MODEL, ADAPTER = sys.argv[1], sys.argv[2]
COMMAND = sys.argv[3] if len(sys.argv) > 3 else str(Path(__file__).parents[1] / "target/release/blackletter")
FOUND = []
IDS = [7 + i * 13 % 400 for i in range(120)]


def base():
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32, attn_implementation="eager").eval()


def theirs(model):
    with torch.no_grad():
        logits = model(torch.tensor([IDS])).logits[0].double()
    return torch.log_softmax(logits, -1)[:-1].gather(1, torch.tensor(IDS)[1:, None])[:, 0]


def ours(model, *options):
    command = [COMMAND, "score", "--model", str(model), "--ids", ",".join(map(str, IDS)), *options]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["token_logprobs"]
    return torch.tensor(found, dtype=torch.float64)


def compare(what, a, b, plain):
    worst, moved = (a - b).abs().max().item(), (b - plain).abs().max().item()
    print(f"{what}: largest difference {worst:.1e}; the adapter moves log-probabilities by up to {moved:.2f}")
    FOUND.append(dict(what=what, largest_difference=worst, moved=moved))
    return worst < 1e-4 and moved > 1e-3


def main():
    plain = theirs(base())
    good = compare("an adapter trained here, loaded by peft", ours(MODEL, "--adapter", ADAPTER), theirs(PeftModel.from_pretrained(base(), ADAPTER)), plain)
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(1)
        config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
        model = get_peft_model(base(), config).eval()
        model.save_pretrained(folder)
        expected = theirs(model)
        good &= compare("an adapter made by peft, loaded here", ours(MODEL, "--adapter", folder), expected, plain)
        merged = Path(folder) / "merged"
        subprocess.run([COMMAND, "merge", "--model", MODEL, "--adapter", folder, "--out", str(merged), "--dtype", "f32"], check=True, capture_output=True)
        good &= compare("the same, merged here", ours(merged), expected, plain)
    if os.environ.get("RECORD"):
        record(os.environ["RECORD"], dict(peft=peft.__version__, rows=FOUND))
    sys.exit(0 if good else 1)


main()
