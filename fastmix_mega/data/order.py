"""The endless order of a source's samples: every epoch a shuffle of its own, nothing stored."""

from __future__ import annotations

import copy
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
        self._available = kept_out if held_out else whole - kept_out
        self.num_samples = self._available
        """Samples in one epoch."""
        self._first = whole - kept_out if held_out else 0

    def subset(self, share: float) -> SampleOrder:
        """Of a share of the samples, which alone are ever read: those depend on the source's name
        only, and are the same for every seed and layout. At least one sample is left."""
        part = copy.copy(self)
        part.num_samples = subset_size(self._available, share)
        return part

    def places(self, indices: NDArray[np.integer]) -> NDArray[np.int64]:
        """[n] the sample in the files of each index, at least 0, in the shuffled, endless order."""
        assert self.num_samples > 0, f"source {self._name} is shorter than one sequence"
        epochs, within = np.divmod(np.asarray(indices, np.int64), self.num_samples)
        found = np.empty_like(within)
        for epoch in np.unique(epochs):
            rows = np.flatnonzero(epochs == epoch)
            key = _key(f"{self._seed}/{self._name}/{epoch}")
            found[rows] = permute(within[rows], self.num_samples, key)
        if self.num_samples < self._available:
            # The subset is the beginning of a shuffle of all, which no seed changes.
            found = permute(found, self._available, _key(f"subset/{self._name}"))
        return found + self._first


def subset_size(samples: int, share: float) -> int:
    """Samples that a share leaves: the nearest whole number, and at least 1 of any."""
    return samples if share >= 1 else min(samples, max(1, round(samples * share)))


def _key(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
