"""The two layers that megatron-core has only for CUDA or TransformerEngine: norm and attention."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right


class RMSNorm(nn.Module):
    """Root-mean-square norm, under sequence parallelism too (torch's wrapper there refuses it)."""

    def __init__(self, config: Any, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(hidden_size, dtype=config.params_dtype))
        # Megatron's mark for gradients that are partial sums over the tensor-parallel group.
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, hidden: Tensor) -> Tensor:
        return functional.rms_norm(hidden, self.weight.shape, self.weight, self.eps)


class CausalAttention(nn.Module):
    """Causal self-attention by torch's `scaled_dot_product_attention`: flash attention on CUDA.

    Under context parallelism a process holds two chunks of every sequence (see
    `fastmix_mega.parallel.context`); keys and values are gathered from all of its group, and each
    chunk of queries attends to the whole text up to its own end.

    With conversations the mask is given (see `fastmix_mega.model.masks`).
    """

    def __init__(self, config: Any, softmax_scale: float | None = None, **_: Any) -> None:
        super().__init__()
        self.config = config
        self.softmax_scale = softmax_scale

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None = None,
        *_unused: Any,
        **_options: Any,
    ) -> Tensor:
        """query [s, b, heads, d], key and value [s, b, groups, d] -> [s, b, heads * d].

        `bias` [b, 1, s, whole s] is added to the logits; None is causal attention.
        """
        if bias is not None:
            return self._forward_biased(query=query, key=key, value=value, bias=bias)
        if self.config.context_parallel_size > 1:
            return self._forward_part(query, key, value)
        query, key, value = (part.permute(1, 2, 0, 3) for part in (query, key, value))  # [b,h,s,d]
        context = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            is_causal=True,
            scale=self.softmax_scale,
            enable_gqa=query.size(1) != key.size(1),
        )
        return context.permute(2, 0, 1, 3).flatten(2)  # [s, b, heads * d]

    def _forward_biased(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        if self.config.context_parallel_size > 1:
            group = parallel_state.get_context_parallel_group()
            key, value = (_whole_sequence(part, group) for part in (key, value))
        groups = query.size(2) // key.size(2)
        # CUDA's kernel for masks has no grouped-query form.
        key, value = (part.repeat_interleave(groups, 2) for part in (key, value))
        query, key, value = (part.permute(1, 2, 0, 3) for part in (query, key, value))  # [b,h,s,d]
        context = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias.to(query.dtype), scale=self.softmax_scale
        )
        return context.permute(2, 0, 1, 3).flatten(2)  # [s, b, heads * d]

    def _forward_part(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        group = parallel_state.get_context_parallel_group()
        size, rank = group.size(), group.rank()
        key, value = (_whole_sequence(part, group) for part in (key, value))
        groups = query.size(2) // key.size(2)
        # The bias below has no grouped-query form; the copies are as large as the queries'.
        key, value = (part.repeat_interleave(groups, 2) for part in (key, value))
        query, key, value = (part.permute(1, 2, 0, 3) for part in (query, key, value))  # [b,h,s,d]
        parts = []
        for chunk, number in zip(query.chunk(2, 2), (rank, 2 * size - 1 - rank), strict=True):
            length = chunk.size(2)
            end = (number + 1) * length
            context = functional.scaled_dot_product_attention(
                chunk.contiguous(),
                key[:, :, :end].contiguous(),
                value[:, :, :end].contiguous(),
                attn_mask=causal_lower_right(length, end),
                scale=self.softmax_scale,
            )
            parts.append(context)
        return torch.cat(parts, 2).permute(2, 0, 1, 3).flatten(2)  # [s, b, heads * d]


def _whole_sequence(part: Tensor, group: Any) -> Tensor:
    """[s / size, ...] zigzag parts of the group's processes -> [s, ...] in the text's order."""
    size = group.size()
    # Made for sequence parallelism: gathers along the first dimension; backward reduce-scatters.
    gathered = gather_from_sequence_parallel_region(part, group=group)
    pieces = gathered.chunk(
        2 * size
    )  # of rank 0: first, last; of rank 1: second, last but one; ...
    return torch.cat([*pieces[::2], *pieces[::-1][::2]])
