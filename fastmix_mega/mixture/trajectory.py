"""A history of vectors that grows without an object for each."""

from __future__ import annotations

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.resumable import Resumable


class Trajectory(Resumable):
    """A growing [K, S] array: one row per outer step.

    Args:
        width: S.
    """

    resumes = ("rows",)

    def __init__(self, width: int) -> None:
        self._rows: FloatArray = np.empty((16, width))
        self._count = 0

    def append(self, row: FloatArray) -> None:
        if self._count == len(self._rows):
            self._rows = np.concatenate((self._rows, np.empty_like(self._rows)))
        self._rows[self._count] = row
        self._count += 1

    @property
    def rows(self) -> FloatArray:
        """[K, S], a view."""
        return self._rows[: self._count]

    @rows.setter
    def rows(self, rows: FloatArray) -> None:
        self._count = len(rows)
        if self._count:
            self._rows = np.array(rows)
