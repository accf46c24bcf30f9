"""Sums per source that stay on the device until they are asked for: no synchronisation per step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class SourceSums:
    """Per source: sums of some value over observations that may weigh differently.

    Four rows: sum of w x, sum of w x^2, sum of w, sum of w^2. With weights of 1, as for text, the
    last two are the number of observations.
    """

    def __init__(self, source_count: int, device: torch.device) -> None:
        self._sums = torch.zeros(4, source_count, dtype=torch.float64, device=device)

    def add(self, sources: Tensor, values: Tensor, weights: Tensor | None = None) -> None:
        """Add observations: sources [n] int64, values [n], weights [n] (1 by default)."""
        values = values.detach().double()
        rows = torch.stack((values, values**2, torch.ones_like(values), torch.ones_like(values)))
        if weights is not None:
            weights = weights.double()
            rows = rows * torch.stack((weights, weights, weights, weights**2))
        self._sums.index_add_(1, sources, rows)

    def take(self, reduce: Callable[[Tensor], Tensor]) -> NDArray[np.float64]:
        """The sums over all processes, [4, S]; starts anew.

        Collective: `reduce` adds a tensor up over the processes that made observations.
        """
        total = reduce(self._sums).cpu().numpy().copy()
        self._sums.zero_()
        return total

    def state(self) -> Tensor:
        return self._sums

    def load(self, state: Tensor) -> None:
        self._sums.copy_(state)
