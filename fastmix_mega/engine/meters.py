"""Two ways to measure <v, gradient> per source during ordinary training, behind one type.

A meter is told of target sequences (begin, add, end), which sets the direction v, and then of
every training micro-batch. It never changes what is trained: it reads, and the target's gradient
is taken outside of DeepSpeed's backward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fastmix_mega.config import Config
from fastmix_mega.data.batches import MicroBatch
from fastmix_mega.engine import head_scores
from fastmix_mega.engine.head_scores import VocabularyShard
from fastmix_mega.engine.hook_scores import GradientProducts, select_parameters
from fastmix_mega.engine.sums import SourceSums
from fastmix_mega.model.gpt import ProxyModel
from fastmix_mega.parallel.layout import Layout

SequenceLosses = Callable[[Any, MicroBatch], Tensor]
"""(model, batch) -> [b] mean loss per sequence, by a forward pass."""


@dataclass(frozen=True)
class GradientAccess:
    """What a meter needs of the engine."""

    model: ProxyModel
    deepspeed: Any
    config: Config
    layout: Layout

    def shard(self) -> VocabularyShard:
        rows = self.model.head_weight.shape[0]
        group = self.layout.tensor_group if self.layout.tensor_size > 1 else None
        return VocabularyShard(rows * self.layout.tensor_rank, group)

    def precondition(
        self, parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor], step: int
    ) -> list[Tensor]:
        """v = P^-1 g in the parameters' dtype; the gradients themselves if that is asked for.

        Args:
            parameters: whose second moments make P.
            gradients: of the target, summed over data parallelism, fp32.
            step: optimizer steps done.

        Collective over data parallelism.
        """
        if self.config.search.precondition:
            self._link_moments()
            pairs = zip(parameters, gradients, strict=True)
            gradients = [self._precondition(parameter, g, step) for parameter, g in pairs]
        return [g.to(p.dtype) for p, g in zip(parameters, gradients, strict=True)]

    def _precondition(self, parameter: nn.Parameter, gradient: Tensor, step: int) -> Tensor:
        from deepspeed.utils import safe_get_full_optimizer_state

        second_moment = safe_get_full_optimizer_state(parameter, "exp_avg_sq")
        assert second_moment is not None, "Adam's moments exist after the first step"
        correction = 1 - self.config.train.optimizer.beta2**step
        corrected = second_moment.view_as(gradient).to(gradient.dtype) / correction
        split = self.layout.tensor_size > 1 and parameter.dim() > 1
        shard = VocabularyShard(0, self.layout.tensor_group if split else None)
        return head_scores.precondition(gradient, corrected, self.config.search.damping, shard)

    def _link_moments(self) -> None:
        """Let DeepSpeed find Adam's moments.

        DeepSpeed 0.19 links parameters to their moments once, after the first parameter group's
        first step: those of later groups, and those of a loaded checkpoint, are never linked.
        """
        from deepspeed.utils import lazy_init_hp_params_optimizer_state

        optimizer = self.deepspeed.optimizer
        for parameters, partition in zip(
            optimizer.bit16_groups, optimizer.single_partition_of_fp32_groups, strict=True
        ):
            lazy_init_hp_params_optimizer_state(parameters, partition, optimizer.optimizer.state)


class ScoreMeter(Protocol):
    """See the module's docstring. `sums` holds one observation per sequence or micro-batch."""

    sums: SourceSums
    enabled: bool
    """Set to False to leave micro-batches unmeasured."""
    scores_left: int | None
    """How many more micro-batches to measure; None for all."""

    def begin_target(self) -> None: ...

    def add_target(self, batch: MicroBatch, weights: Tensor, losses: SequenceLosses) -> Tensor:
        """Add the gradient of sum_k weights_k * loss_k; returns the losses [b]."""

    def end_target(self, step: int) -> None:
        """Set v. Collective."""

    def before_forward(self, batch: MicroBatch) -> None: ...

    def after_backward(self, batch: MicroBatch, scale: float) -> None: ...

    def state(self) -> dict[str, Any]:
        """What a resumed run needs of this process (tensors and numbers)."""

    def load(self, state: dict[str, Any]) -> None: ...


def _takes_next(meter: ScoreMeter) -> bool:
    """Whether the next micro-batch is to be measured; counts it."""
    if not meter.enabled or meter.scores_left == 0:
        return False
    if meter.scores_left is not None:
        meter.scores_left -= 1
    return True


def needs_single_source(scores: str) -> bool:
    """Whether every micro-batch must hold one source for these scores."""
    return scores != "head"


def build_meter(scores: str, access: GradientAccess, source_count: int) -> ScoreMeter:
    if scores == "head":
        return HeadMeter(access, source_count)
    return HookMeter(access, source_count, scores)


class HeadMeter:
    """Closed form at the head: one observation per sequence, sources mixed at will."""

    def __init__(self, access: GradientAccess, source_count: int) -> None:
        self.sums = SourceSums(source_count, access.layout.device)
        self.enabled = True
        self.scores_left: int | None = None
        self._access = access
        self._direction: Tensor | None = None
        self._gradient: Tensor | None = None
        self._forward_count = 0

    def begin_target(self) -> None:
        head = self._access.model.head_weight
        self._gradient = torch.zeros(head.shape, dtype=torch.float32, device=head.device)

    @torch.no_grad()
    def add_target(self, batch: MicroBatch, weights: Tensor, losses: SequenceLosses) -> Tensor:
        per_token = weights / batch.labels.size(1)

        def observe(hidden: Tensor, logits: Tensor, labels: Tensor) -> None:
            assert self._gradient is not None
            token_weights = per_token.expand(labels.size(1), -1).flatten()  # [s * b]
            self._gradient += head_scores.target_gradient(
                hidden.flatten(0, 1),
                logits.flatten(0, 1),
                labels.T.flatten(),
                token_weights,
                self._access.shard(),
            )

        model = self._access.model
        model.observer = observe
        try:
            return losses(model, batch)
        finally:
            model.observer = None

    def end_target(self, step: int) -> None:
        assert self._gradient is not None
        access = self._access
        gradient = access.layout.sum_over_data(self._gradient)
        self._gradient = None
        (self._direction,) = access.precondition([access.model.head_weight], [gradient], step)

    def before_forward(self, batch: MicroBatch) -> None:
        if self._direction is None or not _takes_next(self):
            return
        direction = self._direction
        offset = self._forward_count
        self._forward_count += 1

        def observe(hidden: Tensor, logits: Tensor, labels: Tensor) -> None:
            chosen = self._tokens(labels.size(1), offset)
            scores = head_scores.sequence_scores(
                hidden[chosen], logits[chosen], labels[:, chosen], direction, self._access.shard()
            )
            self.sums.add(batch.sources, scores)

        self._access.model.observer = observe

    def after_backward(self, batch: MicroBatch, scale: float) -> None:
        del batch, scale
        self._access.model.observer = None

    def state(self) -> dict[str, Any]:
        return {
            "direction": self._direction,
            "sums": self.sums.state(),
            "forward_count": self._forward_count,
            "switch": (self.enabled, self.scores_left),
        }

    def load(self, state: dict[str, Any]) -> None:
        self._direction = state["direction"]
        self.sums.load(state["sums"])
        self._forward_count = state["forward_count"]
        self.enabled, self.scores_left = state["switch"]

    def _tokens(self, length: int, offset: int) -> slice:
        """Every n-th token for `search.score_tokens` = 1/n, from a start that moves on."""
        stride = round(1 / self._access.config.search.score_tokens)
        return slice(offset % stride, length, stride)


class HookMeter:
    """Hooks in the backward pass: one observation per micro-batch, which holds one source."""

    def __init__(self, access: GradientAccess, source_count: int, scores: str) -> None:
        self.sums = SourceSums(source_count, access.layout.device)
        self.enabled = True
        self.scores_left: int | None = None
        self._access = access
        chosen = select_parameters(access.model, access.model.head_weight, scores)
        self._products = GradientProducts(chosen.values())
        self._directions: list[Tensor] | None = None
        self._gradients: list[Tensor] = []

    def begin_target(self) -> None:
        self._gradients = [
            torch.zeros(parameter.shape, dtype=torch.float32, device=parameter.device)
            for parameter in self._products.parameters
        ]

    def add_target(self, batch: MicroBatch, weights: Tensor, losses: SequenceLosses) -> Tensor:
        per_sequence = losses(self._access.model, batch)
        # autograd.grad fires no accumulation hook of DeepSpeed's: nothing leaks into training.
        gradients = torch.autograd.grad(
            (per_sequence * weights).sum(), self._products.parameters, materialize_grads=True
        )
        for total, gradient in zip(self._gradients, gradients, strict=True):
            total += gradient
        return per_sequence.detach()

    def end_target(self, step: int) -> None:
        for gradient in self._gradients:
            self._access.layout.sum_over_data(gradient)
        self._directions = self._access.precondition(
            self._products.parameters, self._gradients, step
        )
        self._gradients = []

    def before_forward(self, batch: MicroBatch) -> None:
        del batch
        measured = self._directions is not None and _takes_next(self)
        self._products.directions = self._directions if measured else None

    def after_backward(self, batch: MicroBatch, scale: float) -> None:
        if self._products.directions is None:
            return
        self._products.directions = None
        product = self._products.take()
        # The hooks saw the gradient of weight * scale * (sum of the sequences' losses).
        factor = batch.weights[0].double() * scale * len(batch.sources)
        self.sums.add(batch.sources[:1], (product / factor)[None])

    def state(self) -> dict[str, Any]:
        return {
            "directions": self._directions,
            "sums": self.sums.state(),
            "switch": (self.enabled, self.scores_left),
        }

    def load(self, state: dict[str, Any]) -> None:
        self._directions = state["directions"]
        self.sums.load(state["sums"])
        self.enabled, self.scores_left = state["switch"]
