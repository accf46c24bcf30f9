"""Small token files for the tests of their reader, writer and manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.indexed_writer import IndexedWriter

UINT16 = np.dtype(np.uint16)


def write(prefix: Path, documents: list[list[int]], dtype: np.dtype = UINT16) -> IndexedTokens:
    with IndexedWriter(prefix, dtype) as writer:
        for document in documents:
            writer.add_document(np.array(document, np.int64))
    return IndexedTokens(prefix)
