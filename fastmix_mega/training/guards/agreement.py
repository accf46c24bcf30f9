"""At every step boundary the processes agree: on stopping, and that they are in the same place."""

from __future__ import annotations

import zlib

import torch
import torch.distributed as dist

from fastmix_mega.arrays import FloatArray
from fastmix_mega.parallel.layout import Layout


class Agreement:
    """One small all-reduce per step, on the CPU, so that a GPU's queue is not waited for."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._group = layout.host_group

    def stop(self, step: int, mixture: FloatArray, wanted: bool) -> bool:
        """Whether any process wants to stop.

        Args:
            step: training steps done.
            mixture: [S] as this process has it.
            wanted: whether this process knows of a wish to stop.

        Raises:
            RuntimeError: naming the ranks whose step or mixture differs from the others'.
        """
        if self._layout.world_size == 1:
            return wanted
        place = [step, zlib.crc32(mixture.tobytes())]
        # The maximum of a number and of its negative are equal on all ranks or not at all.
        message = torch.tensor([int(wanted), *place, *(-value for value in place)])
        dist.all_reduce(message, op=dist.ReduceOp.MAX, group=self._group)
        any_wants, *extremes = message.tolist()
        if extremes[:2] != [-value for value in extremes[2:]]:
            self._blame(place)
        return bool(any_wants)

    def _blame(self, place: list[int]) -> None:
        everyone = [torch.zeros(2, dtype=torch.int64) for _ in range(self._layout.world_size)]
        dist.all_gather(everyone, torch.tensor(place), group=self._group)
        places = [tuple(each.tolist()) for each in everyone]
        lines = [
            f"rank {rank}: step {step}, mixture {digest:08x}"
            for rank, (step, digest) in enumerate(places)
            if places.count((step, digest)) <= len(places) // 2
        ]
        raise RuntimeError(
            "the processes have lost step with each other; resume from the last checkpoint. "
            f"Not with the majority: {'; '.join(lines)}"
        )
