"""Two ways to measure <v, gradient> per source during ordinary training, behind one type.

A meter is given target sequences, which sets the direction v, and is then told of every training
step and micro-batch. It never changes what is trained: it reads, and the target's gradient is taken
outside of DeepSpeed's backward. Each process measures what it holds of the model and of a sequence;
the parts are summed where an observation is complete, and one process of a replica records it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fastmix_mega.config import Config
from fastmix_mega.data.batches import MicroBatch
from fastmix_mega.engine import head_scores
from fastmix_mega.engine.head_scores import VocabularyShard
from fastmix_mega.engine.hook_scores import GradientProducts, select_parameters
from fastmix_mega.engine.optimizer_access import OptimizerAccess
from fastmix_mega.engine.passes import Forward, Passes
from fastmix_mega.engine.sums import SourceSums
from fastmix_mega.errors import UserError
from fastmix_mega.model.gpt import ProxyModel, head_of, named_parts
from fastmix_mega.parallel.context import positions_of_rank
from fastmix_mega.parallel.layout import Layout


@dataclass(frozen=True)
class GradientAccess:
    """What a meter needs of the engine."""

    model: nn.Module
    """This process's part."""
    optimizer: OptimizerAccess
    passes: Passes
    config: Config
    layout: Layout

    def precondition(
        self, parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor], step: int
    ) -> list[Tensor]:
        """v = P^-1 g in the parameters' dtype; the gradients themselves if that is asked for.

        Args:
            parameters: whose second moments make P.
            gradients: of the target, complete, fp32.
            step: optimizer steps done.

        Collective over the processes that hold the same stage.
        """
        if self.config.search.precondition:
            self.optimizer.link_moments()
            pairs = zip(parameters, gradients, strict=True)
            gradients = [self._precondition(parameter, g, step) for parameter, g in pairs]
        return [g.to(p.dtype) for p, g in zip(parameters, gradients, strict=True)]

    def _precondition(self, parameter: nn.Parameter, gradient: Tensor, step: int) -> Tensor:
        second_moment = self.optimizer.second_moment(parameter)
        correction = 1 - self.config.train.optimizer.beta2**step
        corrected = second_moment.to(gradient.dtype) / correction
        shard = VocabularyShard(0, self.layout.tensor.group if is_split(parameter) else None)
        return head_scores.precondition(gradient, corrected, self.config.search.damping, shard)


def is_split(parameter: nn.Parameter) -> bool:
    """Whether tensor-parallel ranks hold different parts of it, and not each the whole."""
    return bool(getattr(parameter, "tensor_model_parallel", False))


class ScoreMeter(Protocol):
    """See the module's docstring. `sums` holds one observation per sequence or micro-batch."""

    sums: SourceSums
    """Of this replica's observations, on its reporter."""
    enabled: bool
    """Set to False to leave training steps unmeasured."""
    scores_left: int | None
    """How many more micro-batches to measure; None for all."""

    def set_direction(
        self, step: int, micro_batches: Sequence[MicroBatch], losses: Forward
    ) -> None:
        """Set v from the gradient of the target, sum_k weights_k * loss_k. Collective.

        Args:
            step: training steps done.
            micro_batches: of target sequences, this replica's.
            losses: gives [b] mean losses on the last stage.
        """

    def begin_step(self, step: int, count: int) -> None:
        """A training step with `count` micro-batches begins."""

    def before_forward(self, number: int, batch: MicroBatch) -> None:
        """Micro-batch `number` of the step goes forward now."""

    def end_step(self, micro_batches: Sequence[MicroBatch], scale: float) -> None:
        """The step's backward passes of weights_k * scale * loss_k are done. Collective."""

    def state(self) -> dict[str, Any]:
        """What a resumed run needs of this process: directions by parameter, sums and counters."""

    def load(self, state: dict[str, Any]) -> None: ...


def needs_single_source(scores: str) -> bool:
    """Whether every micro-batch must hold one source for these scores."""
    return scores != "head"


def build_meter(scores: str, access: GradientAccess, source_count: int) -> ScoreMeter:
    if scores == "head":
        return HeadMeter(access, source_count)
    return HookMeter(access, source_count, scores)


class _Meter:
    """What both meters share: the switch and the sums."""

    def __init__(self, access: GradientAccess, source_count: int) -> None:
        self.sums = SourceSums(source_count, access.layout.device)
        self.enabled = True
        self.scores_left: int | None = None
        self._access = access
        self._measured = 0
        """Micro-batches of the current step that are measured, the first ones."""

    def _take(self, count: int) -> int:
        if not self.enabled:
            return 0
        if self.scores_left is None:
            return count
        taken = min(count, self.scores_left)
        self.scores_left -= taken
        return taken

    def state(self) -> dict[str, Any]:
        return {
            "directions": self._directions_by_name(),
            "sums": self.sums.state(),
            "switch": (self.enabled, self.scores_left),
        }

    def load(self, state: dict[str, Any]) -> None:
        self._load_directions(state["directions"])
        self.sums.load(state["sums"])
        self.enabled, self.scores_left = state["switch"]

    def _directions_by_name(self) -> dict[str, Tensor]:
        raise NotImplementedError

    def _load_directions(self, directions: dict[str, Tensor]) -> None:
        raise NotImplementedError


class HeadMeter(_Meter):
    """Closed form at the head: one observation per sequence, sources mixed at will.

    Only the processes that hold the head have something to do.
    """

    def __init__(self, access: GradientAccess, source_count: int) -> None:
        super().__init__(access, source_count)
        self._head: ProxyModel | None = head_of(access.model)
        self._direction: Tensor | None = None
        layout, length = access.layout, access.config.train.seq_length
        self._positions = positions_of_rank(length, layout.context.rank, layout.context.size)
        self._first_number = 0

    def set_direction(
        self, step: int, micro_batches: Sequence[MicroBatch], losses: Forward
    ) -> None:
        access, head = self._access, self._head
        if head is None:
            access.passes.evaluate(micro_batches, losses)
            return
        weight = head.head_weight
        gradient = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)

        def observed(model: Any, number: int, batch: MicroBatch) -> Tensor:
            def observe(hidden: Tensor, logits: Tensor, labels: Tensor) -> None:
                per_token = batch.weights / access.config.train.seq_length
                gradient.add_(
                    head_scores.target_gradient(
                        hidden.flatten(0, 1),
                        logits.flatten(0, 1),
                        labels.T.flatten(),
                        per_token.expand(labels.size(1), -1).flatten(),  # [s * b]
                        self._shard(head),
                    )
                )

            head.observer = observe
            return losses(model, number, batch)

        try:
            access.passes.evaluate(micro_batches, observed)
        finally:
            head.observer = None
        access.layout.weights.sum(gradient)
        (self._direction,) = access.precondition([weight], [gradient], step)

    def begin_step(self, step: int, count: int) -> None:
        self._measured = self._take(count)
        self._first_number = step * count

    def before_forward(self, number: int, batch: MicroBatch) -> None:
        head, direction, layout = self._head, self._direction, self._access.layout
        if head is None:
            return
        head.observer = None
        if direction is None or number >= self._measured:
            return
        chosen, total = self._tokens(number)

        def observe(hidden: Tensor, logits: Tensor, labels: Tensor) -> None:
            scores = head_scores.sequence_scores(
                hidden[chosen],
                logits[chosen],
                labels[:, chosen],
                direction,
                self._shard(head),
                total,
            )
            layout.context.sum(scores)
            if layout.is_reporter:
                self.sums.add(batch.sources, scores)

        head.observer = observe

    def end_step(self, micro_batches: Sequence[MicroBatch], scale: float) -> None:
        del micro_batches, scale
        if self._head is not None:
            self._head.observer = None

    def _shard(self, head: ProxyModel) -> VocabularyShard:
        tensor = self._access.layout.tensor
        rows = head.head_weight.shape[0]
        return VocabularyShard(rows * tensor.rank, tensor.group if tensor.size > 1 else None)

    def _tokens(self, number: int) -> tuple[Tensor | slice, int]:
        """Which of this process's tokens are looked at, and how many are in the whole sequence.

        Every n-th token for `search.score_tokens` = 1/n, from a start that moves on with the
        micro-batch's number in the run, so that no layout changes the choice.
        """
        length = self._access.config.train.seq_length
        stride = round(1 / self._access.config.search.score_tokens)
        if stride == 1:
            return slice(None), length
        data = self._access.layout.data
        start = ((self._first_number + number) * data.size + data.rank) % stride
        chosen = (self._positions % stride == start).nonzero().squeeze(-1)
        return chosen.to(self._access.layout.device), len(range(start, length, stride))

    def _directions_by_name(self) -> dict[str, Tensor]:
        return {} if self._direction is None else {"head": self._direction}

    def _load_directions(self, directions: dict[str, Tensor]) -> None:
        if self._head is not None:
            self._direction = directions.get("head")


class HookMeter(_Meter):
    """Hooks in the backward pass: one observation per micro-batch, which holds one source."""

    def __init__(self, access: GradientAccess, source_count: int, scores: str) -> None:
        super().__init__(access, source_count)
        named = named_parts(access.model)
        chosen = select_parameters(named, scores, access.config.model.tie_embeddings)
        found = torch.tensor([float(len(chosen))], device=access.layout.device)
        if access.layout.replica.sum(found).item() == 0:
            raise UserError(
                f"search.scores: {scores!r} matches none of the parameters "
                f"({', '.join(list(named)[:6])}, ...); or say head, hooks:head, body or all"
            )
        self._names = list(chosen)
        # What every tensor-parallel rank holds whole is counted once.
        counted = [is_split(p) or access.layout.tensor.rank == 0 for p in chosen.values()]
        self._products = GradientProducts(chosen.values(), counted)
        self._directions: list[Tensor] | None = None

    def set_direction(
        self, step: int, micro_batches: Sequence[MicroBatch], losses: Forward
    ) -> None:
        layout, parameters = self._access.layout, self._products.parameters

        def weighted(model: Any, number: int, batch: MicroBatch) -> Tensor:
            output = losses(model, number, batch)
            if not model.post_process:
                return output
            # Context ranks hold means over their parts of a sequence.
            return (output * batch.weights).sum() / layout.context.size

        gradients = self._access.passes.gradients(micro_batches, weighted, parameters)
        for gradient in gradients:
            layout.weights.sum(gradient)
        self._directions = self._access.precondition(parameters, gradients, step)

    def begin_step(self, step: int, count: int) -> None:
        del step
        self._measured = 0 if self._directions is None else self._take(count)
        self._products.directions = self._directions if self._measured else None

    def before_forward(self, number: int, batch: MicroBatch) -> None:
        """Nothing to do: the hooks see the backward passes in the micro-batches' order."""

    def end_step(self, micro_batches: Sequence[MicroBatch], scale: float) -> None:
        self._products.directions = None
        if not self._measured:
            return
        layout, measured = self._access.layout, micro_batches[: self._measured]
        products = self._products.take(len(micro_batches)).to(layout.device)
        layout.replica.sum(products)
        if layout.is_reporter:
            weights = torch.stack([batch.weights[0] for batch in measured]).double()
            # The hooks saw the gradient of weight * scale * (sum of the sequences' losses), and
            # that of every context rank's mean over its own part.
            factors = weights * scale * len(measured[0].sources) * layout.context.size
            sources = torch.stack([batch.sources[0] for batch in measured])
            self.sums.add(sources, products[: len(measured)] / factors)

    def _directions_by_name(self) -> dict[str, Tensor]:
        if self._directions is None:
            return {}
        return dict(zip(self._names, self._directions, strict=True))

    def _load_directions(self, directions: dict[str, Tensor]) -> None:
        found = [directions[name] for name in self._names if name in directions]
        self._directions = found if len(found) == len(self._names) and directions else None
