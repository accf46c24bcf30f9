"""Steps whose gradient is not finite: counted, and traced to the sequences where that shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from fastmix_mega.data.sampler import Draw
from fastmix_mega.parallel.layout import Layout
from fastmix_mega.resumable import Resumable


class NonFiniteGuard(Resumable):
    """Counts skipped steps.

    Args:
        limit: how many skipped steps are too many.
        names: of the sources.
        layout: this process's place.
    """

    resumes = ("count",)

    def __init__(self, limit: int, names: Sequence[str], layout: Layout) -> None:
        self.count = 0
        """Steps skipped in the whole run."""
        self._limit = limit
        self._names = list(names)
        self._layout = layout

    @property
    def too_many(self) -> bool:
        return self.count >= self._limit

    def report(
        self,
        step: int,
        draw: Draw,
        rows: Sequence[NDArray[np.int64]],
        losses: Sequence[Tensor],
    ) -> dict[str, Any]:
        """Count a skipped step. Collective.

        Args:
            step: the skipped one, from 0.
            draw: its global batch.
            rows: this process's rows of it, by micro-batch.
            losses: of these rows, [b] per micro-batch.

        Returns:
            A line for events.jsonl. `sequences` are those whose loss is not finite; empty where
            every loss was finite and only the gradient was not.
        """
        self.count += 1
        found = [
            {
                "source": self._names[draw.sources[row]],
                "sample": int(draw.indices[row]),
                "rank": self._layout.rank,
            }
            for places, values in zip(rows, losses, strict=True)
            for row, finite in zip(places, values.isfinite().tolist(), strict=True)
            if not finite
        ]
        everyone: list[Any] = [found]
        if self._layout.world_size > 1:
            everyone = [None] * self._layout.world_size
            dist.all_gather_object(everyone, found)
        return {
            "step": step + 1,
            "kind": "skipped",
            "count": self.count,
            "sequences": [each for part in everyone for each in part],
        }

    def describe(self, event: dict[str, Any]) -> str:
        where = ", ".join(
            f"sample {each['sample']} of {each['source']} (rank {each['rank']})"
            for each in event["sequences"][:5]
        )
        return (
            f"step {event['step']} is skipped, its gradient is not finite "
            f"({self.count} of {self._limit}): {where or 'every loss was finite'}"
        )
