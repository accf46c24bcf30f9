"""Sequences as they are read, and what every source of them offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastmix_mega.data.indexed_reader import IndexedTokens


@dataclass(frozen=True)
class Rows:
    """n sequences of s tokens."""

    tokens: NDArray[np.int64]
    """[n, s + 1]: inputs are [:, :-1], labels [:, 1:]."""
    loss_mask: NDArray[np.bool_] | None = None
    """[n, s] which labels count; None for all."""
    documents: NDArray[np.int32] | None = None
    """[n, s] which conversation each input belongs to; None where attention has no borders."""


class Source(Protocol):
    """A source, target or held-out set, of text or of conversations."""

    name: str
    seq_length: int
    files: list[IndexedTokens]
    num_tokens: int
    """Of an epoch, as a run's budget counts them."""
    num_samples: int
    """Sequences in one epoch."""
    masked: bool
    """Whether only some tokens count."""
    choices: int
    """Sequences in a row that are the choices of one question; 1 where there are no questions."""

    def read(self, indices: NDArray[np.integer]) -> Rows:
        """Sequences by their place in the shuffled, endless order: from `num_samples` on they are
        those of the next epoch, which has an order of its own."""

    def samples(self, indices: NDArray[np.integer]) -> NDArray[np.int64]:
        """[n, seq_length + 1] int64 tokens alone."""

    def subset(self, share: float) -> Source:
        """The same source, of which only a share of the samples is ever read."""


def any_masked(sources: Sequence[Source]) -> bool:
    return any(source.masked for source in sources)
