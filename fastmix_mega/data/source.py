"""A source: one logical token space over one or more prefixes, in a shuffled order of samples."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastmix_mega.data.indexed import IndexedTokens
from fastmix_mega.data.permutation import permute


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

    def __init__(
        self,
        name: str,
        prefixes: Sequence[str],
        seq_length: int,
        seed: int,
        holdout: int = 0,
        held_out: bool = False,
    ) -> None:
        self.name = name
        self.seq_length = seq_length
        self.seed = seed
        self.files = [IndexedTokens(prefix) for prefix in prefixes]
        self.num_tokens = sum(file.num_tokens for file in self.files)
        samples = [max(0, (file.num_tokens - 1) // seq_length) for file in self.files]
        self._ends = np.cumsum(samples, dtype=np.int64)
        whole = int(self._ends[-1]) if samples else 0
        kept_out = min(holdout, whole)
        self.num_samples = kept_out if held_out else whole - kept_out
        """Samples in one epoch."""
        self._first = whole - kept_out if held_out else 0

    def samples(self, indices: NDArray[np.integer]) -> NDArray[np.int64]:
        """Read samples by their place in the shuffled, endless order.

        Args:
            indices: [n], each at least 0; from `num_samples` on they are those of the next epoch,
                which has an order of its own.

        Returns:
            [n, seq_length + 1] int64.
        """
        assert self.num_samples > 0, f"source {self.name} is shorter than one sequence"
        epochs, places = np.divmod(np.asarray(indices, np.int64), self.num_samples)
        tokens = np.empty((len(places), self.seq_length + 1), np.int64)
        for epoch in np.unique(epochs):
            rows = np.flatnonzero(epochs == epoch)
            shuffled = permute(places[rows], self.num_samples, self._key(int(epoch)))
            for row, sample in zip(rows, shuffled, strict=True):
                tokens[row] = self._read(self._first + int(sample))
        return tokens

    def _read(self, sample: int) -> NDArray[np.integer]:
        file = int(np.searchsorted(self._ends, sample, side="right"))
        first = sample - (int(self._ends[file - 1]) if file else 0)
        start = first * self.seq_length
        return self.files[file].tokens[start : start + self.seq_length + 1]

    def _key(self, epoch: int) -> int:
        digest = hashlib.sha256(f"{self.seed}/{self.name}/{epoch}".encode()).digest()
        return int.from_bytes(digest[:8], "little")
