"""Scores at the head in closed form, taken in the forward pass: one per sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastmix_mega.model.gpt import ProxyModel, head_of
from fastmix_mega.parallel.context import positions_of_rank
from fastmix_mega.training.engine import head_scores
from fastmix_mega.training.engine.batches import MicroBatch, moved
from fastmix_mega.training.engine.head_scores import VocabularyShard
from fastmix_mega.training.engine.meters import GradientAccess, Meter
from fastmix_mega.training.engine.passes import Forward

TINY_SHARE = 1e-6
"""Of a target in the objective, below which its gradient is not taken from the weighted one."""


class HeadMeter(Meter):
    """Closed form at the head: one observation per sequence, sources mixed at will.

    Only the processes that hold the head have something to do.
    """

    def __init__(self, access: GradientAccess, source_count: int) -> None:
        super().__init__(access, source_count)
        self._head: ProxyModel | None = head_of(access.model)
        self._direction: Tensor | None = None
        self._target_directions: list[Tensor] = []
        layout, length = access.layout, access.config.train.seq_length
        self._positions = positions_of_rank(length, layout.context.rank, layout.context.size)
        self._positions_there = self._positions.to(layout.device)
        self._chosen: dict[int, Tensor] = {}
        """By the first token that is looked at: places of this process's tokens, on the device."""

    def set_direction(
        self,
        step: int,
        micro_batches: Sequence[MicroBatch],
        shares: Tensor,
        losses: Forward,
        again: Forward,
    ) -> None:
        del again
        access, head = self._access, self._head
        if head is None:
            access.passes.evaluate(micro_batches, losses)
            return
        weight = head.head_weight
        # Given up first: a direction and the gradients of the next one are never held together.
        self._direction, self._target_directions = None, []
        empty = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
        # The whole one first, then every target's own.
        gradients = [empty, *(torch.zeros_like(empty) for _ in range(self.target_count))]
        shares_here = shares.tolist()
        targets = self._targets_by_row(micro_batches)

        def observed(model: Any, number: int, batch: MicroBatch) -> Tensor:
            def observe(hidden: Tensor, logits: Tensor, labels: Tensor) -> None:
                def gradient_of(rows: Tensor | slice, weights: Tensor) -> Tensor:
                    token_weights = self._token_weights(replace(batch, weights=weights))
                    return head_scores.target_gradient(
                        hidden=hidden[:, rows].flatten(0, 1),
                        logits=logits[:, rows].flatten(0, 1),
                        labels=labels[rows].T.flatten(),
                        weights=token_weights[rows].T.flatten(),  # [s * rows]
                        shard=self._shard(head),
                    )

                whole = gradient_of(slice(None), batch.weights * shares[batch.sources])
                gradients[0].add_(whole)
                if self.target_count:
                    own = partial(gradient_of, weights=batch.weights)
                    self._add_by_target(gradients[1:], targets[number], shares_here, whole, own)

            head.observer = observe
            return losses(model, number, batch)

        try:
            access.passes.evaluate(micro_batches, observed)
        finally:
            head.observer = None
        for gradient in gradients:
            access.layout.weights.sum(gradient)
        made = access.precondition([weight], [[gradient] for gradient in gradients], step)
        (self._direction,), *others = made
        self._target_directions = [direction for (direction,) in others]

    def _targets_by_row(self, micro_batches: Sequence[MicroBatch]) -> list[list[int]]:
        """Of every micro-batch, the target of each sequence that weighs something; -1 for others.

        Read from the device once: in the midst of the passes every look would wait for it.
        """
        # Weights of wrong choices are negative.
        rows = [torch.where(each.weights != 0, each.sources, -1) for each in micro_batches]
        found: list[list[int]] = torch.stack(rows).tolist()
        return found

    def _add_by_target(
        self,
        gradients: list[Tensor],
        targets: list[int],
        shares: list[float],
        whole: Tensor,
        gradient_of: Callable[[Tensor], Tensor],
    ) -> None:
        """Add a micro-batch of target sequences to each target's own gradient.

        Args:
            gradients: of every target.
            targets: of each sequence, -1 for one that weighs nothing.
            shares: of every target in the objective.
            whole: the micro-batch's gradient of the objective.
            gradient_of: the gradient of some of its sequences, by their places.
        """
        present = sorted(set(targets) - {-1})
        if len(present) == 1 and shares[present[0]] > TINY_SHARE:
            gradients[present[0]].add_(whole / shares[present[0]])
            return
        for target in present:
            rows = [row for row, each in enumerate(targets) if each == target]
            places = moved(np.array(rows), self._access.layout.device)
            gradients[target].add_(gradient_of(places))

    def before_forward(self, number: int, batch: MicroBatch) -> None:
        head, direction, layout = self._head, self._direction, self._access.layout
        if head is None:
            return
        head.observer = None
        if direction is None or number >= self._measured:
            return
        chosen, total = self._tokens(batch, number)
        counted, answers = self._counted(batch, number)
        own = None if counted is None else counted[:, chosen]
        divisor = total if answers is None else answers.clamp_min(1)
        by_target = bool(self._target_directions) and self._scores_targets(number)

        def observe(hidden: Tensor, logits: Tensor, labels: Tensor) -> None:
            seen = (hidden[chosen], logits[chosen], labels[:, chosen])
            shard = self._shard(head)
            scores = head_scores.sequence_scores(*seen, direction, shard, divisor, own)
            layout.context.sum(scores)
            if layout.is_reporter:
                self.sums.add(batch.sources, scores, answers)
            if not by_target:
                return
            if own is None or answers is None:
                token_weights = torch.full(seen[2].shape, 1.0 / total, device=scores.device)
            else:
                token_weights = own / answers.clamp_min(1)[:, None]
            scores = layout.context.sum(
                head_scores.sequence_scores_by_target(
                    *seen, token_weights, self._target_directions, shard
                )
            )
            if layout.is_reporter:
                self._add_target_scores(batch.sources, scores, answers)

        head.observer = observe

    def end_step(self, micro_batches: Sequence[MicroBatch], scale: float) -> None:
        del micro_batches, scale
        if self._head is not None:
            self._head.observer = None

    def _token_weights(self, batch: MicroBatch) -> Tensor:
        """[b, s] of this process's tokens: the sequence's weight, shared among what counts."""
        if batch.loss_mask is None or batch.answers is None:
            per_token = batch.weights / self._access.config.train.seq_length
            return per_token[:, None].expand(-1, len(self._positions))
        counted = batch.loss_mask[:, self._positions_there]
        return (batch.weights / batch.answers)[:, None] * counted

    def _counted(self, batch: MicroBatch, number: int) -> tuple[Tensor | None, Tensor | None]:
        """[b, s] which of this process's labels count, and [b] how many of the whole sequence's do
        and are looked at; None and None for text."""
        if batch.loss_mask is None:
            return None, None
        stride, start = self._stride(batch, number)
        answers = batch.loss_mask[:, start::stride].sum(1).float()
        return batch.loss_mask[:, self._positions_there], answers

    def _shard(self, head: ProxyModel) -> VocabularyShard:
        tensor = self._access.layout.tensor
        rows = head.head_weight.shape[0]
        return VocabularyShard(rows * tensor.rank, tensor.group if tensor.size > 1 else None)

    def _tokens(self, batch: MicroBatch, number: int) -> tuple[Tensor | slice, int]:
        """Which of this process's tokens are looked at, and how many are in the whole sequence.

        Every n-th token for `search.score_tokens` = 1/n, from a start that moves on with the
        micro-batch's number in the run, so that no layout changes the choice.
        """
        length = self._access.config.train.seq_length
        stride, start = self._stride(batch, number)
        if stride == 1:
            return slice(None), length
        total = len(range(start, length, stride))
        if self._access.layout.context.size == 1:
            return slice(start, None, stride), total  # A view; an index would copy the logits.
        if start not in self._chosen:
            # Each copy to the device waits for it; there are no more than `stride` of them.
            chosen = (self._positions % stride == start).nonzero().squeeze(-1)
            self._chosen[start] = chosen.to(self._access.layout.device)
        return self._chosen[start], total

    def _stride(self, batch: MicroBatch, number: int) -> tuple[int, int]:
        """Every n-th token of micro-batch `number`, and the first one."""
        share = self._access.config.search.scored_share(batch.loss_mask is not None)
        stride = round(1 / share)
        return stride, self._index(number) % stride

    def _directions_by_name(self) -> list[dict[str, Tensor]]:
        if self._direction is None:
            return []
        return [{"head": each} for each in (self._direction, *self._target_directions)]

    def _load_directions(self, directions: list[dict[str, Tensor]]) -> None:
        if self._head is not None and directions and "head" in directions[0]:
            self._direction, *self._target_directions = (each["head"] for each in directions)
