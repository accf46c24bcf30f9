"""The endless order of a source's samples: every epoch a shuffle of its own, nothing stored."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fastmix_mega.data.permutation import permute


class SampleOrder:
    """Which sample comes when.

    Args:
        name: of the source; part of the shuffle's key.
        seed: of the run.
        whole: samples in the files.
        holdout: samples at the end that are kept out of training.
        held_out: take those samples, and none of the others.
    """

    def __init__(self, name: str, seed: int, whole: int, holdout: int, held_out: bool) -> None:
        self._name, self._seed = name, seed
        kept_out = min(holdout, whole)
        self.num_samples = kept_out if held_out else whole - kept_out
        """Samples in one epoch."""
        self._first = whole - kept_out if held_out else 0

    def places(self, indices: NDArray[np.integer]) -> NDArray[np.int64]:
        """[n] the sample in the files of each index, at least 0, in the shuffled, endless order."""
        assert self.num_samples > 0, f"source {self._name} is shorter than one sequence"
        epochs, within = np.divmod(np.asarray(indices, np.int64), self.num_samples)
        found = np.empty_like(within)
        for epoch in np.unique(epochs):
            rows = np.flatnonzero(epochs == epoch)
            found[rows] = permute(within[rows], self.num_samples, self._key(int(epoch)))
        return found + self._first

    def _key(self, epoch: int) -> int:
        digest = hashlib.sha256(f"{self._seed}/{self._name}/{epoch}".encode()).digest()
        return int.from_bytes(digest[:8], "little")
