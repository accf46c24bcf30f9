"""Which conversations share a sequence: first-fit decreasing within groups of 64.

Group g of M holds the conversations g, g + M, g + 2M, ...: from all over the source, without a
shuffle to store. The packing depends on the lengths and the sequence length alone, so that it is
the same for every seed, epoch, restart and layout; the sequences are what an epoch shuffles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GROUP = 64
"""Conversations that are packed together."""
LEFT_OUT = 255
"""In place of a bin's number."""
BLOCK = 1024
"""Groups looked at together: what they need stays in the processor's cache."""


@dataclass(frozen=True)
class Packing:
    """Sequences by number, counted through the groups."""

    bins: NDArray[np.uint8]
    """[M, GROUP] the bin of each conversation within its group, or LEFT_OUT."""
    ends: NDArray[np.int64]
    """[M] sequences up to and including each group."""

    @property
    def count(self) -> int:
        """Sequences."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def conversations(self, sequence: int) -> NDArray[np.int64]:
        """The conversations of a sequence, in the order in which they stand in it."""
        group = int(np.searchsorted(self.ends, sequence, side="right"))
        before = int(self.ends[group - 1]) if group else 0
        return np.flatnonzero(self.bins[group] == sequence - before) * len(self.ends) + group


def pack(lengths: NDArray[np.integer], capacity: int) -> Packing:
    """Pack conversations into sequences.

    Args:
        lengths: [N] tokens of each, at most `capacity`; 0 for those to leave out.
        capacity: tokens of a sequence.

    Takes O(N) time, and one byte per conversation.
    """
    groups = -(-len(lengths) // GROUP)
    filled = np.zeros(GROUP * groups, np.int32)
    filled[: len(lengths)] = lengths
    grid = filled.reshape(GROUP, groups).T  # [M, GROUP]
    bins = np.empty((groups, GROUP), np.uint8)
    for start in range(0, groups, BLOCK):
        bins[start : start + BLOCK] = _first_fit(grid[start : start + BLOCK], capacity)
    counts = np.where(bins == LEFT_OUT, 0, bins.astype(np.int64) + 1).max(1, initial=0)
    return Packing(bins, np.cumsum(counts))


def _first_fit(lengths: NDArray[np.int32], capacity: int) -> NDArray[np.uint8]:
    """[m, GROUP] bins; the longest go first, each into the first bin that has room."""
    order = np.argsort(-lengths, axis=1, kind="stable")
    room = np.full(lengths.shape, capacity, np.int32)
    bins = np.full(lengths.shape, LEFT_OUT, np.uint8)
    every = np.arange(len(lengths))
    for turn in range(GROUP):
        member = order[:, turn]
        length = lengths[every, member]
        chosen = (room >= length[:, None]).argmax(1)
        rows = np.flatnonzero(length > 0)
        room[rows, chosen[rows]] -= length[rows]
        bins[rows, member[rows]] = chosen[rows]
    return bins
