"""How long a document may be by default: as long as its tokenizer's library has memory for.

The library of a tokenizer.json takes 100 to 225 bytes of memory for every byte of a text (measured
with words, single letters, spaces, punctuation and Chinese; 2 MB each), sentencepiece about 45. A
worker encodes about 1 MiB of documents together, or one longer one besides. So with the defaults a
worker stays below 2.3 GB with a tokenizer.json.
"""

from __future__ import annotations

from pathlib import Path

LARGEST, LARGEST_JSON = 256 << 20, 8 << 20
"""Bytes of a line or text: by default, and with a tokenizer.json."""


def default_largest(tokenizer: Path) -> int:
    """Bytes of the longest document for the kind of tokenizer that lies at a path."""
    return LARGEST_JSON if tokenizer.is_dir() or tokenizer.suffix == ".json" else LARGEST
