#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets into fuzz/seeds/TARGET/ (standard library only; same bytes every time).

Run a target from the repository's root with:
    cargo +nightly fuzz run TARGET fuzz/corpus/TARGET fuzz/seeds/TARGET -- -max_total_time=620 -rss_limit_mb=2048
"""

import json
import struct
from pathlib import Path

SEEDS = Path(__file__).resolve().parent.parent / "fuzz" / "seeds"


def write(target: str, name: str, data: bytes) -> None:
    path = SEEDS / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def text(value) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def safetensors(tensors: list[tuple[str, str, list[int], int]]) -> bytes:
    header, offset = {}, 0
    for name, dtype, shape, size in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    head = text(header)
    return struct.pack("<Q", len(head)) + head + bytes(offset)


def configs() -> None:
    base = {
        "model_type": "mixtral", "vocab_size": 4, "hidden_size": 2, "intermediate_size": 2, "num_hidden_layers": 1,
        "num_attention_heads": 1, "num_local_experts": 2, "num_experts_per_tok": 1, "max_position_embeddings": 8,
    }
    write("config", "least.json", text(base))
    write("config", "old_rope.json", text(base | {"rope_theta": 1e4, "sliding_window": 4, "num_key_value_heads": 1}))
    write("config", "new_rope.json", text(base | {
        "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}, "head_dim": 4, "sliding_window": None,
        "eos_token_id": [1, 2], "bos_token_id": 0, "pad_token_id": None, "tie_word_embeddings": True,
        "rms_norm_eps": 1e-5, "router_aux_loss_coef": 0.02, "hidden_act": "silu",
    }))
    write("config", "generation.json", text({
        "temperature": 0.5, "top_k": 50, "top_p": 0.9, "min_p": 0.1, "typical_p": 0.9, "repetition_penalty": 1.1,
        "no_repeat_ngram_size": 3, "max_new_tokens": 32, "eos_token_id": 1,
    }))


def headers() -> None:
    layer = "model.layers.0."
    expert = layer + "block_sparse_moe.experts.0."
    matrices = [layer + f"self_attn.{p}_proj.weight" for p in "qkvo"] + [expert + f"w{i}.weight" for i in (1, 2, 3)]
    norms = [layer + "input_layernorm.weight", layer + "post_attention_layernorm.weight", "model.norm.weight"]
    for dtype, size in (("F32", 4), ("BF16", 2), ("F16", 2)):
        shapes = [("model.embed_tokens.weight", [4, 2]), ("lm_head.weight", [4, 2])]
        shapes += [(name, [2, 2]) for name in matrices] + [(name, [2]) for name in norms]
        shapes += [(layer + "block_sparse_moe.gate.weight", [1, 2])]
        rows = []
        for name, shape in shapes:
            count = 1
            for n in shape:
                count *= n
            rows.append((name, dtype, shape, count * size))
        write("safetensors_header", f"whole_{dtype.lower()}", safetensors(rows))
    quants = expert + "w1.weight"
    write("safetensors_header", "quantised", safetensors([
        (quants + ".quants", "U8", [1, 1, 256], 256), (quants + ".scales", "F16", [1, 1, 16], 32),
    ]))
    write("safetensors_header", "other_dtype", safetensors([("model.norm.weight", "F64", [2], 16)]))
    write("safetensors_header", "no_tensors", safetensors([]))
    write("safetensors_header", "long_header", struct.pack("<Q", 100_000_000) + b"{}")
    write("safetensors_header", "git_lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def tokenizers() -> None:
    # The byte-level alphabet: printable bytes stand for themselves, the others for code points from 256 on.
    plain = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255]
    letters = {b: chr(b) for b in plain}
    for i, b in enumerate(b for b in range(256) if b not in letters):
        letters[b] = chr(256 + i)
    small = "Sec. 1(a)theour"
    for name, alphabet in (("bytes", sorted(letters.values())), ("few", sorted(set(small)))):
        vocab = {token: i for i, token in enumerate(["<|start|>", *alphabet, "th", "the"])}
        for spelling, merges in (("old", ["t h", "th e"]), ("new", [["t", "h"], ["th", "e"]])):
            write("tokenizer_json", f"{name}_{spelling}.json", text({
                "version": "1.0", "truncation": None, "padding": None,
                "added_tokens": [{
                    "id": 0, "content": "<|start|>", "single_word": False, "lstrip": False, "rstrip": False,
                    "normalized": False, "special": True,
                }],
                "normalizer": None,
                "pre_tokenizer": {
                    "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True,
                },
                "post_processor": None,
                "decoder": {
                    "type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True,
                },
                "model": {
                    "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                    "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocab,
                    "merges": merges,
                },
            }))
    write("tokenizer_json", "word_level.json", text({
        "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": {"the": 0, "[UNK]": 1}, "unk_token": "[UNK]"},
    }))


def examples():
    line = {
        "instruction": "Cite this.", "input": "§ 5", "output": "5 U.S.C. § 5", "kind": "text_to_citation",
        "document": "usc:5", "dataset": "usc", "license": "CC0-1.0", "fields": ["title"],
    }
    write("sft_line", "instruction.json", text(line))
    roles = [("system", "Be brief."), ("user", "What is law?"), ("assistant", "Rules.")]
    write("sft_line", "messages.json", text({"messages": [{"role": r, "content": c} for r, c in roles]}))


configs()
headers()
tokenizers()
examples()
