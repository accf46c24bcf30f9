"""Sums per source that stay on the device until they are asked for: no synchronisation per step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class SourceSums:
    """Per source: sum, sum of squares and count of some value per observation."""

    def __init__(self, source_count: int, device: torch.device) -> None:
        self._sums = torch.zeros(3, source_count, dtype=torch.float64, device=device)

    def add(self, sources: Tensor, values: Tensor) -> None:
        """Add observations: sources [n] int64, values [n]."""
        values = values.detach().double()
        self._sums.index_add_(1, sources, torch.stack((values, values**2, torch.ones_like(values))))

    def take(self, reduce: Callable[[Tensor], Tensor]) -> NDArray[np.float64]:
        """The sums over all processes, [3, S] (sum, sum of squares, count); starts anew.

        Collective: `reduce` adds a tensor up over the processes that made observations.
        """
        total = reduce(self._sums).cpu().numpy().copy()
        self._sums.zero_()
        return total

    def state(self) -> Tensor:
        return self._sums

    def load(self, state: Tensor) -> None:
        self._sums.copy_(state)
