"""A source: one logical token space over one or more prefixes, in a shuffled order of samples."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fastmix_mega.data.choice_source import ChoiceSource, choices_of
from fastmix_mega.data.conversations import ConversationSource
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.order import SampleOrder
from fastmix_mega.data.rows import Rows, Source
from fastmix_mega.errors import UserError


class TokenSource:
    """Samples of fixed length from flat token files; opens in O(1), holds no index.

    Sample k of a file is its tokens [k * s, (k + 1) * s + 1): neighbours share one token, which is
    the label of one and the input of the next. The sample of (seed, name, index) depends on
    nothing else: not on the world size, the rank, the micro-batch or a restart.

    Args:
        name: of the source; part of the shuffle's key.
        prefixes: its files, without .bin/.idx.
        seq_length: s.
        seed: of the run.
        holdout: samples at the end that are kept out of training.
        held_out: take those samples, and none of the others.

    Raises:
        UserError: if a file is missing or broken.
    """

    masked = False
    choices = 1

    def __init__(
        self,
        name: str,
        prefixes: Sequence[str | IndexedTokens],
        seq_length: int,
        seed: int,
        holdout: int = 0,
        held_out: bool = False,
    ) -> None:
        self.name = name
        self.seq_length = seq_length
        self.files = [
            file if isinstance(file, IndexedTokens) else IndexedTokens(file) for file in prefixes
        ]
        self.num_tokens = sum(file.num_tokens for file in self.files)
        samples = [max(0, (file.num_tokens - 1) // seq_length) for file in self.files]
        self._ends = np.cumsum(samples, dtype=np.int64)
        whole = int(self._ends[-1]) if samples else 0
        self._order = SampleOrder(name, seed, whole, holdout, held_out)
        self.num_samples = self._order.num_samples
        """Samples in one epoch."""

    def subset(self, share: float) -> Self:
        """The same source, of which only a share is ever read (see `SampleOrder.subset`)."""
        part = copy.copy(self)
        part._order = self._order.subset(share)
        part.num_samples = part._order.num_samples
        return part

    def samples(self, indices: NDArray[np.integer]) -> NDArray[np.int64]:
        """Read samples by their place in the shuffled, endless order.

        Args:
            indices: [n], each at least 0; from `num_samples` on they are those of the next epoch,
                which has an order of its own.

        Returns:
            [n, seq_length + 1] int64.
        """
        tokens = np.empty((len(indices), self.seq_length + 1), np.int64)
        for row, sample in enumerate(self._order.places(indices)):
            tokens[row] = self._read(int(sample))
        return tokens

    def read(self, indices: NDArray[np.integer]) -> Rows:
        """As `samples`; every token counts."""
        return Rows(self.samples(indices))

    def _read(self, sample: int) -> NDArray[np.integer]:
        file = int(np.searchsorted(self._ends, sample, side="right"))
        first = sample - (int(self._ends[file - 1]) if file else 0)
        start = first * self.seq_length
        return self.files[file].tokens[start : start + self.seq_length + 1]


def open_source(
    name: str,
    prefixes: Sequence[str],
    seq_length: int,
    seed: int,
    holdout: int = 0,
    held_out: bool = False,
    packed: bool = True,
) -> Source:
    """Text, conversations or multiple choice, by the files' loss mask and manifest; arguments as
    there.

    Raises:
        UserError: if a file is missing or broken, or some have a loss mask and others none.
    """
    files = [IndexedTokens(prefix) for prefix in prefixes]
    masked = [file for file in files if file.mask is not None]
    if not masked:
        return TokenSource(name, files, seq_length, seed, holdout, held_out)
    if len(masked) < len(files):
        without = next(file.prefix for file in files if file.mask is None)
        raise UserError(
            f"{masked[0].prefix} has a loss mask and {without} has none; make them two sources"
        )
    if any(choices_of(file) > 1 for file in files):
        return ChoiceSource(name, files, seq_length, seed)
    return ConversationSource(name, files, seq_length, seed, holdout, held_out, packed)
