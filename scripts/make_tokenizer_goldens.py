#!/usr/bin/env python3
"""Makes crates/tokenizer/tests/data: small tokenizers, and the ids that Python's `tokenizers` gives for awkward text.

Needs `pip install tokenizers`. Run from the repository root:  python scripts/make_tokenizer_goldens.py
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

OUT = Path("crates/tokenizer/tests/data")

TEXT = """
Section 1. Short title. This Act may be cited as the Lamp Oil Inspection Act.
Section 2. Definitions. In this Act, the term "inspector" means a person whom the Secretary appoints under section 3;
the term "lamp oil" means any oil that is sold for burning in a lamp; and the term "State" includes the District.
(a) In general. The inspector shall examine each barrel of lamp oil before it is sold, and shall mark it.
(b) Penalty. Whoever sells lamp oil that has not been marked shall be fined not more than $500 for each barrel.
(c) Governing Law. This Agreement shall be governed by the laws of the State in which the barrel was examined.
It doesn't matter who examined it; they'll be heard, and we've said so. § 12(b)(1)(A) applies — café, naïve, 1,000 ½.
""" * 4

TEXTS = [
    "",
    " ",
    "\0",
    "a\0b",
    "Under this",
    "The inspector shall examine each barrel of lamp oil.",
    "  two  spaces   and\ttabs\t\tand\r\n\r\nlines\n\n\n",
    " " * 600,
    "\n" * 33 + "x" + "\r\n" * 17,
    "a" * 300,
    "don't we'll they've I'm it's he'd you're 'sunk '' 'S DON'T",
    "<|end|>",
    "before<|start|> <|pad|>after<|end",
    "<|<|end|>|> <|END|> <|end|><|end|>",
    "(a)(1)(ii) 1776 17760 776 177",
    "§ 12 U.S.C. 5411 — “quoted” ½ Ⅷ ٣",
    "👩‍👩‍👧‍👦 🇺🇸 e\u0301 \u200d\u200b\ufeff\u0085\u00a0\u2003x\u180e",
    "中文 日本語 한국어 عربى עברית ไทย",
    "\u0120\u010a\u0143",
    "\U0010ffff\ud7ff\ue000\ufffd",
    '{"key":"value","n":null} <!-- x --> </TABLE> http://www.x.org',
    "x" + " " * 9 + "y" + " " * 17 + "\n",
]


def save(name: str, tokenizer: Tokenizer) -> None:
    tokenizer.save(str(OUT / f"{name}.json"))


def goldens(tokenizer: Tokenizer) -> list[dict]:
    rows = []
    for text in TEXTS:
        tokenizer.encode_special_tokens = False
        parsed = tokenizer.encode(text).ids
        tokenizer.encode_special_tokens = True
        as_text = tokenizer.encode(text).ids
        rows.append({
            "text": text,
            "parse": parsed,
            "as_text": as_text,
            "decoded": tokenizer.decode(parsed, skip_special_tokens=False),
            "decoded_skipping": tokenizer.decode(parsed, skip_special_tokens=True),
        })
    return rows


def byte_level() -> Tokenizer:
    """The kl3m shape in small: special tokens, added words, added white space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [AddedToken(t, special=True, normalized=False) for t in ("<|start|>", "<|end|>", "<|pad|>")]
    tokenizer.train_from_iterator(
        TEXT.splitlines(),
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    words = ["(a)", "(1)", "1776", "776", "</TABLE>", " href=", "\r\n", "\t\t", "null", "http://", "§", "é"]
    runs = [c * n for n in range(1, 18) for c in " \n"]
    tokenizer.add_tokens([AddedToken(t, special=False) for t in words + runs])
    # One that is special and one that is not, both matched before normalizing.
    tokenizer.add_tokens([AddedToken("lamp oil", special=False, normalized=False)])
    tokenizer.enable_padding(direction="left", pad_id=2, pad_token="<|pad|>")
    return tokenizer


def word_piece() -> Tokenizer:
    """Another shape, which the general path must take."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(
        TEXT.splitlines(),
        trainers.WordPieceTrainer(vocab_size=160, special_tokens=["[UNK]", "<|end|>"], show_progress=False),
    )
    return tokenizer


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    tokenizer = byte_level()
    padding = tokenizer.padding
    tokenizer.no_padding()
    rows = {"byte_level": goldens(tokenizer)}
    tokenizer.enable_padding(**{k: padding[k] for k in ("direction", "pad_id", "pad_token")})
    save("byte_level", tokenizer)
    # The spelling of merges that was in use before tokenizers 0.20.
    old = json.loads((OUT / "byte_level.json").read_text())
    old["model"]["merges"] = [" ".join(pair) for pair in old["model"]["merges"]]
    (OUT / "byte_level_old_merges.json").write_text(json.dumps(old, ensure_ascii=False))
    other = word_piece()
    rows["word_piece"] = goldens(other)
    save("word_piece", other)
    (OUT / "goldens.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
