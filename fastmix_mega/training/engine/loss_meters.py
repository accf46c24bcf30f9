"""Sums of losses by source during ordinary training: the model's own, or what exceeds another's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastmix_mega.parallel.layout import Layout
from fastmix_mega.training.engine.batches import MicroBatch
from fastmix_mega.training.engine.sums import SourceSums

TokenLosses = Callable[[MicroBatch], Tensor]
"""A model's [b, s] losses of a micro-batch's tokens, those that this process holds."""


SequenceLosses = Callable[[MicroBatch, Tensor], Tensor]
"""(micro-batch, [b, s] losses of its tokens) -> [b] means over the tokens that count."""


class LossMeter:
    """One observation per training sequence. It reads, and changes nothing.

    Args:
        source_count: S.
        layout: this process's place.
        mean: of a sequence's tokens.
        reference: the other model; None records the plain losses.
    """

    def __init__(
        self,
        source_count: int,
        layout: Layout,
        mean: SequenceLosses,
        reference: TokenLosses | None = None,
    ) -> None:
        self.sums = SourceSums(source_count, layout.device)
        self.enabled = False
        self._layout = layout
        self._mean = mean
        self._reference = reference

    @torch.no_grad()
    def observe(self, batch: MicroBatch, token_losses: Tensor) -> None:
        """Record a micro-batch of a training step; token_losses: [b, s] fp32."""
        if not self.enabled:
            return
        losses = token_losses.detach()
        if self._reference is not None:
            # DoReMi, Algorithm 1: max(loss - reference's loss, 0), token by token.
            losses = (losses - self._reference(batch)).clamp(min=0)
        values = self._mean(batch, losses)
        context = self._layout.context
        if context.size > 1:
            values = context.sum(values / context.size)
        if self._layout.is_reporter:
            self.sums.add(batch.sources, values)

    def state(self) -> dict[str, Any]:
        """What a run that is resumed within a window needs of this process."""
        return {"sums": self.sums.state(), "enabled": self.enabled}

    def load(self, state: dict[str, Any]) -> None:
        self.sums.load(state["sums"])
        self.enabled = state["enabled"]
