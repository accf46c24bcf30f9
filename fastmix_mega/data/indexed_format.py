"""The layout of Megatron's indexed token files, `<prefix>.bin` and `<prefix>.idx`.

The .bin holds the tokens. The .idx holds: magic, version (uint64), dtype code (uint8), number of
sequences and of document boundaries (uint64 each), lengths (int32), byte offsets (int64), document
boundaries (int64).
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.uint8),
    2: np.dtype(np.int8),
    3: np.dtype(np.int16),
    4: np.dtype(np.int32),
    5: np.dtype(np.int64),
    8: np.dtype(np.uint16),
}
"""Megatron's codes of token types; 6 and 7 are floats, which hold no tokens."""


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """uint16 below 65,500 tokens, int32 from there (Megatron's rule)."""
    return np.dtype(np.uint16) if vocab_size < 65500 else np.dtype(np.int32)


def encode_index(lengths: NDArray[np.int32], dtype: np.dtype[Any]) -> bytes:
    """The .idx of documents of one sequence each."""
    code = next(code for code, known in DTYPES.items() if known == dtype)
    offsets = np.zeros(len(lengths), np.int64)
    np.cumsum(lengths[:-1], out=offsets[1:], dtype=np.int64)
    boundaries = np.arange(len(lengths) + 1, dtype=np.int64)
    header = HEADER.pack(MAGIC, 1, code, len(lengths), len(boundaries))
    return b"".join(
        (header, lengths.tobytes(), (offsets * dtype.itemsize).tobytes(), boundaries.tobytes())
    )
