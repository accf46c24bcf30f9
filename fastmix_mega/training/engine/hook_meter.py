"""Scores over any parameters, taken by hooks in the backward pass: one per micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fastmix_mega.errors import UserError
from fastmix_mega.model.gpt import named_parts
from fastmix_mega.training.engine.batches import MicroBatch
from fastmix_mega.training.engine.hook_scores import (
    GradientProducts,
    no_such_parameters,
    select_parameters,
)
from fastmix_mega.training.engine.meters import GradientAccess, Meter, is_split
from fastmix_mega.training.engine.passes import Forward


class HookMeter(Meter):
    """Hooks in the backward pass: one observation per micro-batch, which holds one source."""

    def __init__(self, access: GradientAccess, source_count: int, scores: str) -> None:
        super().__init__(access, source_count)
        named = named_parts(access.model)
        chosen = select_parameters(named, scores, access.config.model.tie_embeddings)
        found = torch.tensor([float(len(chosen))], device=access.layout.device)
        if access.layout.replica.sum(found).item() == 0:
            raise UserError(no_such_parameters(scores, named))
        self._names = list(chosen)
        # What every tensor-parallel rank holds whole is counted once.
        counted = [is_split(p) or access.layout.tensor.rank == 0 for p in chosen.values()]
        self._products = GradientProducts(chosen.values(), counted)
        self._directions: list[Tensor] | None = None
        self._target_directions: list[list[Tensor]] = []

    def set_direction(
        self,
        step: int,
        micro_batches: Sequence[MicroBatch],
        shares: Tensor,
        losses: Forward,
        again: Forward,
    ) -> None:
        # Given up first: a direction and the gradients of the next one are never held together.
        self._directions, self._target_directions = None, []
        self._products.target_directions = []
        shared = [
            replace(batch, weights=batch.weights * shares[batch.sources]) for batch in micro_batches
        ]
        gradients = [self._gradients(shared, losses)]
        for target in range(self.target_count):
            gradients.append(self._gradients(self._of_target(micro_batches, target), again))
        parameters = self._products.parameters
        made = self._access.precondition(parameters, gradients, step)
        self._directions, *self._target_directions = made

    def _gradients(self, micro_batches: Sequence[MicroBatch], losses: Forward) -> list[Tensor]:
        """Of the weighted sum of the losses, over all processes; one per parameter."""
        layout = self._access.layout

        def weighted(model: Any, number: int, batch: MicroBatch) -> Tensor:
            output = losses(model, number, batch)
            if not model.post_process:
                return output
            # Context ranks hold means over their parts of a sequence.
            return (output * batch.weights).sum() / layout.context.size

        parameters = self._products.parameters
        gradients = self._access.passes.gradients(micro_batches, weighted, parameters)
        for gradient in gradients:
            layout.weights.sum(gradient)
        return gradients

    def _of_target(self, micro_batches: Sequence[MicroBatch], target: int) -> list[MicroBatch]:
        """Those that hold sequences of one target, where the others weigh nothing.

        A pipeline needs one micro-batch at least, and its interleaved schedule a multiple of its
        stages; those that are added weigh nothing.
        """
        masked = [
            replace(batch, weights=batch.weights * (batch.sources == target))
            for batch in micro_batches
        ]
        # One look at the device for all of them.
        weighs = torch.stack([batch.weights.any() for batch in masked]).tolist()
        chosen = [batch for batch, something in zip(masked, weighs, strict=True) if something]
        sizes = self._access.layout.sizes
        multiple = sizes["pipeline"] if sizes["interleave"] > 1 else 1
        missing = -len(chosen) % multiple or (0 if chosen else multiple)
        idle = replace(masked[0], weights=torch.zeros_like(masked[0].weights))
        return chosen + [idle] * missing

    def begin_step(self, step: int, count: int) -> None:
        super().begin_step(step, count)
        if self._directions is None:
            self._measured = 0
        products = self._products
        products.directions = self._directions if self._measured else None
        products.target_directions = self._target_directions
        products.scored = [
            bool(self._target_directions) and self._scores_targets(number)
            for number in range(count)
        ]

    def before_forward(self, number: int, batch: MicroBatch) -> None:
        """Nothing to do: the hooks see the backward passes in the micro-batches' order."""

    def end_step(self, micro_batches: Sequence[MicroBatch], scale: float) -> None:
        self._products.directions = None
        if not self._measured:
            return
        layout, measured = self._access.layout, micro_batches[: self._measured]
        products = self._products.take(len(micro_batches)).to(layout.device)
        layout.replica.sum(products)
        # Of text all weights of a micro-batch, which holds one source, are the same.
        weights = torch.stack([batch.weights.double().mean() for batch in measured])
        counts = [batch.answers.sum() for batch in measured if batch.answers is not None]
        answers = torch.stack(counts) if counts else None
        # The hooks saw the gradient of weight * scale * (sum of the sequences' losses), and
        # that of every context rank's mean over its own part.
        factors = weights * scale * len(measured[0].sources) * layout.context.size
        sources = torch.stack([batch.sources[0] for batch in measured])
        if layout.is_reporter:
            self.sums.add(sources, products[: len(measured)] / factors, answers)
        scored = [number for number, chosen in enumerate(self._products.scored) if chosen]
        if not scored:
            return
        products = layout.replica.sum(self._products.take_targets().to(layout.device))
        if layout.is_reporter:
            self._add_target_scores(
                sources[scored],
                (products / factors[scored, None]).T,
                None if answers is None else answers[scored],
            )

    def _directions_by_name(self) -> list[dict[str, Tensor]]:
        if self._directions is None:
            return []
        every = (self._directions, *self._target_directions)
        return [dict(zip(self._names, each, strict=True)) for each in every]

    def _load_directions(self, directions: list[dict[str, Tensor]]) -> None:
        found = [[each[name] for name in self._names if name in each] for each in directions]
        if found and all(len(each) == len(self._names) for each in found):
            self._directions, *self._target_directions = found
