"""The attention mask of sequences that hold several conversations: block-diagonal and causal.

Rotary positions need no restart: they act on the difference of two positions alone, which inside a
conversation is the same wherever it stands.
"""

from __future__ import annotations

import torch
from torch import Tensor


def conversation_bias(documents: Tensor, positions: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to the attention's logits: 0 where a query may look, -inf elsewhere.

    Args:
        documents: [b, s] which conversation each position belongs to.
        positions: [q] the queries' positions in the sequence.
        dtype: of the model.

    Returns:
        [b, 1, q, s]; made once for all layers, which share it in the backward pass too.
    """
    same = documents[:, positions, None] == documents[:, None, :]  # [b, q, s]
    earlier = positions[:, None] >= torch.arange(documents.size(1), device=documents.device)
    bias = torch.zeros(same.shape, dtype=dtype, device=documents.device)
    return bias.masked_fill_(~(same & earlier), float("-inf"))[:, None]
