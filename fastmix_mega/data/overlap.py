"""Documents that stand in two token files: leakage of a target into a source."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.permutation import mix

WINDOW = 32
"""Documents are compared by length and by their first, middle and last tokens; shorter ones, which
say too little, are left out. (Beginning and end alone are not enough: generated headers share
both.)"""
MOST_DOCUMENTS = 100_000
"""Documents looked at per file, spread evenly, so that a check takes seconds at any size."""


def document_hashes(files: Sequence[IndexedTokens]) -> NDArray[np.uint64]:
    """One 64-bit hash per document that is long enough, of all files together."""
    return np.concatenate([_fingerprints(file) for file in files])


def shared_documents(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> int:
    """How many documents of `second` are also in `first`, from their hashes.

    Near-copies are not found here; `data_tools` keeps those apart when it makes the files.
    """
    return int(np.isin(second, first).sum())


def shared_by_pairs(hashes: Sequence[NDArray[np.uint64]]) -> NDArray[np.int64]:
    """[S, S] how many documents every two of S sources share; a document counts once a source.

    The diagonal holds every source's own different documents.
    """
    own = [np.unique(each) for each in hashes]
    count = len(own)
    values = np.concatenate(own) if own else np.zeros(0, np.uint64)
    holders = np.repeat(np.arange(count), [len(each) for each in own])
    order = np.argsort(values, kind="stable")
    values, holders = values[order], holders[order]
    shared = np.diag(np.array([len(each) for each in own], np.int64))
    # Equal hashes stand side by side now, of at most `count` sources: look 1, 2, ... places ahead.
    for ahead in range(1, count):
        same = np.flatnonzero(values[ahead:] == values[:-ahead])
        if not len(same):
            break
        pairs = holders[same], holders[same + ahead]
        np.add.at(shared, pairs, 1)
        np.add.at(shared, pairs[::-1], 1)
    return shared


def _fingerprints(file: IndexedTokens) -> NDArray[np.uint64]:
    """One 64-bit hash per document that is long enough."""
    count = file.num_sequences
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_DOCUMENTS)).astype(np.int64))
    starts = np.asarray(file.offsets)[chosen] // file.dtype.itemsize
    lengths = np.asarray(file.lengths)[chosen].astype(np.int64)
    long_enough = lengths >= WINDOW
    starts, lengths = starts[long_enough], lengths[long_enough]
    hashes = lengths.astype(np.uint64)
    for base in (starts, starts + (lengths - WINDOW) // 2, starts + lengths - WINDOW):
        for place in range(WINDOW):
            token = file.tokens[base + place].astype(np.uint64)
            hashes = mix(hashes + token + np.uint64(0x9E3779B97F4A7C15))
    return hashes
