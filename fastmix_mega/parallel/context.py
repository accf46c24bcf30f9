"""Which positions of a sequence a context-parallel process holds: megatron-core's zigzag.

A sequence is cut into 2 x size chunks; rank r holds chunks r and 2 x size - 1 - r. So every process
has as much causal attention to compute as the others.
"""

from __future__ import annotations

import torch
from torch import Tensor


def positions_of_rank(length: int, rank: int, size: int) -> Tensor:
    """[length / size] int64 positions in the sequence, in the order in which they are held."""
    assert length % (2 * size) == 0 or size == 1
    if size == 1:
        return torch.arange(length)
    chunks = torch.arange(length).view(2 * size, -1)
    return torch.cat((chunks[rank], chunks[2 * size - 1 - rank]))
