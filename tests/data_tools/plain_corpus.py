"""Documents of plain words, and `preprocess` over them."""

from __future__ import annotations

import random
from pathlib import Path

from data_tools import preprocess

WORDS = [
    "the",
    "model",
    "reads",
    "tokens",
    "of",
    "many",
    "sources",
    "and",
    "learns",
    "which",
    "mixture",
    "is",
    "best",
    "for",
    "it",
]


def text(number: int) -> str:
    draw = random.Random(number)
    return " ".join(draw.choices(WORDS, k=draw.randint(1, 80))) + f" {number}."


def run(corpus: Path, output: Path, *words: str) -> int:
    tokenizer = str(corpus / "t.model")
    return preprocess.main([*words, "--tokenizer", tokenizer, "--output-prefix", str(output)])


def content(prefix: Path) -> tuple[bytes, bytes]:
    return Path(f"{prefix}.bin").read_bytes(), Path(f"{prefix}.idx").read_bytes()
