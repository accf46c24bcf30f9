"""Gradients and scores at the language-model head in closed form: forward only, no backward.

The head computes logits = W h for every token; its loss's gradient with respect to the logits is
p - onehot(label). So the target's gradient is sum_t w_t (p_t - onehot(y_t)) h_t^T, and the inner
product of any matrix V with a training sequence's own gradient is mean_t (p_t - onehot(y_t))^T V
h_t (shared notes: "The rule"; FastMix, section 3). Under tensor parallelism every process holds a
shard of the vocabulary, and its results are the parts of a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

CHUNK_ELEMENTS = 1 << 24
"""Logits that are looked at together: the copies that the formulas need stay small (64 MB)."""


@dataclass(frozen=True)
class VocabularyShard:
    """The rows of the head that this process holds."""

    start: int
    group: Any
    """The tensor-parallel group; None for one process."""

    def reduce(self, tensor: Tensor, operation: Any = None) -> Tensor:
        """In place: reduce over the shards (sum by default)."""
        if self.group is not None:
            dist.all_reduce(tensor, op=operation or dist.ReduceOp.SUM, group=self.group)
        return tensor

    def softmax(self, logits: Tensor) -> Tensor:
        """This shard's part of the probabilities, [..., V / shards], fp32 (fp64 for fp64)."""
        logits = logits if logits.dtype == torch.float64 else logits.float()
        if self.group is None:
            return logits.softmax(-1)  # One pass over the memory instead of four.
        top = self.reduce(logits.amax(-1, keepdim=True), dist.ReduceOp.MAX)
        shares = (logits - top).exp_()
        return shares.div_(self.reduce(shares.sum(-1, keepdim=True)))


def logit_gradient(logits: Tensor, labels: Tensor, shard: VocabularyShard) -> Tensor:
    """p - onehot(label) for this shard's rows.

    Args:
        logits: [n, V / shards], any float dtype.
        labels: [n] token ids of the whole vocabulary.

    Returns:
        [n, V / shards], fp32 (fp64 for fp64 logits); a new tensor.
    """
    gradient = shard.softmax(logits)
    local = labels - shard.start
    inside = (local >= 0) & (local < gradient.size(-1))
    # Labels of other shards take 0 from the first row: which they are, only the device knows.
    place = local.where(inside, 0)[:, None]
    return gradient.scatter_add_(-1, place, -inside.to(gradient.dtype)[:, None])


def target_gradient(
    hidden: Tensor, logits: Tensor, labels: Tensor, weights: Tensor, shard: VocabularyShard
) -> Tensor:
    """Gradient of sum_t weights_t * cross_entropy_t with respect to this shard of the head.

    Of target sequences or of any others.

    Args:
        hidden: [n, d] the head's input.
        logits: [n, V / shards].
        labels: [n].
        weights: [n] fp32.

    Returns:
        [V / shards, d], fp32 (fp64 for fp64 logits).
    """
    rows = _chunk_rows(logits.size(-1))
    total: Tensor | None = None
    for parts in zip(
        *(part.split(rows) for part in (hidden, logits, labels, weights)), strict=True
    ):
        part_hidden, part_logits, part_labels, part_weights = parts
        gradient = logit_gradient(part_logits, part_labels, shard)
        gradient.mul_(part_weights.to(gradient.dtype)[:, None])
        found = gradient.T @ part_hidden.to(gradient.dtype)
        total = found if total is None else total.add_(found)
    assert total is not None, "no token was given"
    return total


def _chunk_rows(vocabulary: int) -> int:
    return max(1, CHUNK_ELEMENTS // vocabulary)


def sequence_scores(
    hidden: Tensor,
    logits: Tensor,
    labels: Tensor,
    direction: Tensor,
    shard: VocabularyShard,
    token_count: int | Tensor,
    counted: Tensor | None = None,
) -> Tensor:
    """<direction, gradient of the sequence's mean loss> for every sequence.

    Args:
        hidden: [s, b, d] the head's input at the tokens to look at.
        logits: [s, b, V / shards].
        labels: [b, s].
        direction: [V / shards, d] this shard of v.
        token_count: what the mean divides by: s, or more where others hold the rest of the
            sequence; [b] where sequences differ.
        counted: [b, s] which labels count; None for all.

    Returns:
        [b], summed over the shards, in the dtype of `logit_gradient`.
    """
    batch = hidden.size(1)
    rows = _chunk_rows(logits.size(-1) * batch)
    products = []
    for part_hidden, part_logits, part_labels in zip(
        *(part.split(rows) for part in (hidden, logits, labels.T)), strict=True
    ):
        # One product for all tokens; the logits, a strided view perhaps, are read where they lie.
        response = (part_hidden.flatten(0, 1) @ direction.to(hidden.dtype).T).unflatten(
            0, (-1, batch)
        )
        probabilities = shard.softmax(part_logits)  # [rows, b, V / shards]
        response = response.to(probabilities.dtype)
        expected = probabilities.mul_(response).sum(-1)
        local = part_labels - shard.start
        inside = (local >= 0) & (local < response.size(-1))
        own = response.gather(-1, local.where(inside, 0)[..., None]).squeeze(-1)
        products.append(expected - own.where(inside, 0.0))  # [rows, b]
    per_token = torch.cat(products)  # [s, b]
    if counted is not None:
        per_token = per_token * counted.T
    return shard.reduce(per_token.sum(0) / token_count)


def sequence_scores_by_target(
    hidden: Tensor,
    logits: Tensor,
    labels: Tensor,
    token_weights: Tensor,
    directions: Sequence[Tensor],
    shard: VocabularyShard,
) -> Tensor:
    """<direction, gradient of the sequence's mean loss> for several directions.

    Each sequence's gradient is formed once, at the cost of one product with a direction, and
    compared with every direction: many directions cost hardly more than one.

    Args:
        hidden, logits, labels, shard: as for `sequence_scores`.
        token_weights: [b, s] fp32, each token's share of its sequence's mean.
        directions: K of [V / shards, d].

    Returns:
        [K, b] fp64, summed over the shards.
    """
    columns = []
    for each, weights in enumerate(token_weights):
        gradient = target_gradient(
            hidden=hidden[:, each],
            logits=logits[:, each],
            labels=labels[each],
            weights=weights,
            shard=shard,
        )
        rows = [torch.linalg.vecdot(gradient, v.to(gradient.dtype)) for v in directions]
        columns.append(torch.stack(rows).sum(1, dtype=torch.float64))  # [K, V] -> [K]
    return shard.reduce(torch.stack(columns, 1))


def preconditioner(second_moment: Tensor, damping: float, shard: VocabularyShard) -> Tensor:
    """P = sqrt(m) + damping * sqrt(mean(m)) + 1e-8, by which a gradient is divided.

    `second_moment` m is Adam's exp_avg_sq, corrected for bias; its mean is taken over the whole
    parameter, all shards together.
    """
    total = torch.stack((second_moment.sum(), second_moment.new_tensor(second_moment.numel())))
    shard.reduce(total)
    root_mean_square = (total[0] / total[1]).sqrt()
    return second_moment.sqrt().add_(damping * root_mean_square).add_(1e-8)
