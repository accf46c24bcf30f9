"""A stateless shuffle: the position of any index in a random order, by arithmetic alone.

A balanced Feistel network permutes the smallest even number of bits that holds the size, and
positions outside are sent through it again until they land inside (cycle walking; Black and
Rogaway, 2002). Nothing is stored, so a source of 10^12 samples opens as fast as one of ten.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROUNDS = 6
UintArray = NDArray[np.uint64]


def permute(indices: NDArray[np.integer], size: int, key: int) -> NDArray[np.int64]:
    """Where each index goes in the random order that `key` names.

    Args:
        indices: any shape, each in [0, size).
        size: of the permuted range, at least 1.
        key: 64 bits; every key is another order.

    Returns:
        int64 in the shape of `indices`; a bijection on [0, size).
    """
    assert size >= 1
    half_bits = max(1, -(-(size - 1).bit_length() // 2))
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    keys = _round_keys(key)
    values = np.asarray(indices).astype(np.uint64)
    assert (values < size).all(), "an index lies outside of the permuted range"
    flat = values.reshape(-1)
    outside = np.arange(len(flat))
    while len(outside):
        flat[outside] = _feistel(flat[outside], keys, shift, mask)
        outside = outside[flat[outside] >= size]
    return flat.reshape(values.shape).astype(np.int64)


def _feistel(values: UintArray, keys: UintArray, shift: np.uint64, mask: np.uint64) -> UintArray:
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (mix(right ^ key) & mask)
    return (left << shift) | right


def mix(values: UintArray) -> UintArray:
    """SplitMix64's finaliser of an array: every output bit depends on every input bit."""
    # Arrays of integers wrap around without a warning; only scalars would give one.
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _round_keys(key: int) -> UintArray:
    golden = 0x9E3779B97F4A7C15
    seeds = [(key + golden * (turn + 1)) & 0xFFFFFFFFFFFFFFFF for turn in range(ROUNDS)]
    return mix(np.array(seeds, np.uint64))
