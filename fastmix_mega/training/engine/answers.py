"""The weight of sequences of which only the answers count.

A sequence k has n_k tokens that count and the mean loss l_k over them. For text n_k is the same for
all, and a step's loss is sum_k w_k l_k / B. With masks it is sum_k w_k n_k l_k / sum_k w_k n_k over
the global batch: every answer token counts alike, whichever sequence, micro-batch or process holds
it. So w_k becomes w_k n_k B / sum_j w_j n_j here, and all that follows stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fastmix_mega.parallel.layout import Ranks
from fastmix_mega.training.engine.batches import MicroBatch


def weigh_step(
    micro_batches: Sequence[MicroBatch], global_batch: int, data: Ranks
) -> Sequence[MicroBatch]:
    """The micro-batches of a training step with weights whose sum over all ranks is B.

    Without masks they stay as they are. Collective over data parallelism if there are masks.
    """
    zeros = [torch.zeros_like(batch.sources) for batch in micro_batches]
    return _weigh(micro_batches, zeros, [global_batch], data)


def weigh_sets(
    micro_batches: Sequence[MicroBatch], set_count: int, data: Ranks
) -> Sequence[MicroBatch]:
    """The micro-batches of targets or held-out sets, which `sources` number: each set's weights sum
    to 1, and each of its answer tokens counts alike. Otherwise as `weigh_step`."""
    groups = [batch.sources for batch in micro_batches]
    return _weigh(micro_batches, groups, [1] * set_count, data)


def _weigh(
    micro_batches: Sequence[MicroBatch],
    groups: Sequence[Tensor],
    totals: Sequence[int],
    data: Ranks,
) -> Sequence[MicroBatch]:
    """`totals` are equal numbers, one a group: what each group's weights sum to."""
    if not micro_batches or micro_batches[0].answers is None:
        return micro_batches
    sums = torch.zeros(len(totals), dtype=torch.float64, device=micro_batches[0].weights.device)
    weighed = []
    for batch, group in zip(micro_batches, groups, strict=True):
        assert batch.answers is not None
        weighed.append(batch.weights.double() * batch.answers)
        sums.index_add_(0, group, weighed[-1])
    data.sum(sums)
    # A set of which this step holds nothing has no weight to share out.
    scale = totals[0] / sums.clamp_min(1e-300)
    return [
        replace(batch, weights=(weight * scale[group]).float())
        for batch, weight, group in zip(micro_batches, weighed, groups, strict=True)
    ]
