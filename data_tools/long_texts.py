"""How long a document may be by default: as long as its tokenizer's library has memory for."""

from __future__ import annotations

from pathlib import Path

LARGEST, LARGEST_JSON = 256 << 20, 16 << 20
"""Bytes of a line or text: by default, and with a tokenizer.json."""


def default_largest(tokenizer: Path) -> int:
    """Bytes of the longest document for the kind of tokenizer that lies at a path."""
    return LARGEST_JSON if tokenizer.is_dir() or tokenizer.suffix == ".json" else LARGEST
