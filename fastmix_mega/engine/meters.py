"""Two ways to measure <v, gradient> per source during ordinary training, behind one type.

A meter is given target sequences, which sets the direction v, and is then told of every training
step and micro-batch. It never changes what is trained: it reads, and the target's gradient is taken
outside of DeepSpeed's backward. Each process measures what it holds of the model and of a sequence;
the parts are summed where an observation is complete, and one process of a replica records it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fastmix_mega.config import Config
from fastmix_mega.data.batches import MicroBatch
from fastmix_mega.engine import head_scores
from fastmix_mega.engine.head_scores import VocabularyShard
from fastmix_mega.engine.hook_scores import GradientProducts, select_parameters
from fastmix_mega.engine.loss_meters import EXCESS_LOSSES, LOSSES
from fastmix_mega.engine.optimizer_access import OptimizerAccess
from fastmix_mega.engine.passes import Forward, Passes
from fastmix_mega.engine.sums import SourceSums
from fastmix_mega.errors import UserError
from fastmix_mega.model.gpt import ProxyModel, head_of, named_parts
from fastmix_mega.parallel.context import positions_of_rank
from fastmix_mega.parallel.layout import Layout

TINY_SHARE = 1e-6
"""Of a target in the objective, below which its gradient is not taken from the weighted one."""


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
        self, parameters: Sequence[nn.Parameter], gradients: list[list[Tensor]], step: int
    ) -> list[list[Tensor]]:
        """v = P^-1 g in the parameters' dtype; the gradients themselves if that is asked for.

        Args:
            parameters: whose second moments make P.
            gradients: lists of one complete gradient per parameter, fp32; each is given up here
                when its direction is made.
            step: optimizer steps done.

        Returns:
            As many lists of one direction per parameter.

        Collective over the processes that hold the same stage.
        """
        if self.config.search.precondition:
            self.optimizer.link_moments()
        directions: list[list[Tensor]] = [[] for _ in gradients]
        for position, parameter in enumerate(parameters):
            divisor = self._preconditioner(parameter, step)
            for given, made in zip(gradients, directions, strict=True):
                gradient = given[position] if divisor is None else given[position].div_(divisor)
                made.append(gradient.to(parameter.dtype))
                given[position] = gradient.new_empty(0)
        return directions

    def _preconditioner(self, parameter: nn.Parameter, step: int) -> Tensor | None:
        if not self.config.search.precondition:
            return None
        second_moment = self.optimizer.second_moment(parameter)
        correction = 1 - self.config.train.optimizer.beta2**step
        corrected = second_moment.float() / correction
        shard = VocabularyShard(0, self.layout.tensor.group if is_split(parameter) else None)
        return head_scores.preconditioner(corrected, self.config.search.damping, shard)


def is_split(parameter: nn.Parameter) -> bool:
    """Whether tensor-parallel ranks hold different parts of it, and not each the whole."""
    return bool(getattr(parameter, "tensor_model_parallel", False))


class ScoreMeter(Protocol):
    """See the module's docstring. `sums` holds one observation per sequence or micro-batch.

    With loss masks an observation is a mean over answer tokens and weighs as many as these, so that
    a source's score is the mean over all its answer tokens, whichever sequence holds them.
    """

    sums: SourceSums
    """Of this replica's observations, on its reporter."""
    target_sums: SourceSums
    """The same for every target by itself: source i of target k has the number k * S + i."""
    target_count: int
    """Targets that are measured one by one: K, or 0 where nothing but the whole is."""
    enabled: bool
    """Set to False to leave training steps unmeasured."""
    scores_left: int | None
    """How many more micro-batches to measure; None for all."""

    def set_direction(
        self,
        step: int,
        micro_batches: Sequence[MicroBatch],
        shares: Tensor,
        losses: Forward,
        again: Forward,
    ) -> None:
        """Set v from the gradient of sum_k shares_k * loss of target k. Collective.

        Args:
            step: training steps done.
            micro_batches: of target sequences, this replica's; `sources` number the targets and
                `weights` average each of them.
            shares: [targets] fp32.
            losses: gives [b] mean losses on the last stage; for one pass over the micro-batches.
            again: the same for any number of passes.
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
    return scores not in ("head", LOSSES, EXCESS_LOSSES)


def build_meter(scores: str, access: GradientAccess, source_count: int) -> ScoreMeter:
    if scores == "head":
        return HeadMeter(access, source_count)
    return HookMeter(access, source_count, scores)


class _Meter:
    """What both meters share: the switch, the sums, and whose turn it is."""

    def __init__(self, access: GradientAccess, source_count: int) -> None:
        device, share = access.layout.device, access.config.search.target_scores
        self.target_count = access.config.separate_targets
        self.sums = SourceSums(source_count, device)
        self.target_sums = SourceSums(self.target_count * source_count, device)
        self.enabled = True
        self.scores_left: int | None = None
        self._access = access
        self._source_count = source_count
        self._target_stride = round(1 / share) if share > 0 else 1
        self._measured = 0
        """Micro-batches of the current step that are measured, the first ones."""
        self._first_number = 0

    def begin_step(self, step: int, count: int) -> None:
        self._measured = self._take(count)
        self._first_number = step * count

    def _index(self, number: int) -> int:
        """Of the step's micro-batch in the whole run, the same under every layout."""
        data = self._access.layout.data
        return (self._first_number + number) * data.size + data.rank

    def _scores_targets(self, number: int) -> bool:
        """Whether a measured micro-batch is compared with every target by itself too.

        Every n-th one for `search.target_scores` = 1/n, from a place that moves on, so that it
        stays in step with no other choice (`search.score_tokens`).
        """
        if not self.target_count or number >= self._measured:
            return False
        if self.scores_left is not None:
            return True
        index = self._index(number)
        return (index + index // self._target_stride) % self._target_stride == 0

    def _add_target_scores(
        self, sources: Tensor, scores: Tensor, weights: Tensor | None = None
    ) -> None:
        """Observations by target: sources [n], scores [K, n], weights [n] (1 by default)."""
        numbers = torch.arange(self.target_count, device=sources.device)[:, None]
        places = numbers * self._source_count + sources  # [K, n]
        spread = None if weights is None else weights.expand(self.target_count, -1).flatten()
        self.target_sums.add(places.flatten(), scores.flatten(), spread)

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
            "target_sums": self.target_sums.state(),
            "switch": (self.enabled, self.scores_left),
        }

    def load(self, state: dict[str, Any]) -> None:
        self._load_directions(state["directions"])
        self.sums.load(state["sums"])
        self.target_sums.load(state["target_sums"])
        self.enabled, self.scores_left = state["switch"]

    def _directions_by_name(self) -> list[dict[str, Tensor]]:
        """v and then every target's own, by parameter; empty before the first look."""
        raise NotImplementedError

    def _load_directions(self, directions: list[dict[str, Tensor]]) -> None:
        raise NotImplementedError


class HeadMeter(_Meter):
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
        empty = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
        # The whole one first, then every target's own.
        gradients = [empty, *(torch.zeros_like(empty) for _ in range(self.target_count))]
        self._target_directions = []

        def observed(model: Any, number: int, batch: MicroBatch) -> Tensor:
            def observe(hidden: Tensor, logits: Tensor, labels: Tensor) -> None:
                self._add_gradients(gradients, batch, shares, hidden, logits, labels)

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

    def _add_gradients(
        self,
        gradients: list[Tensor],
        batch: MicroBatch,
        shares: Tensor,
        hidden: Tensor,
        logits: Tensor,
        labels: Tensor,
    ) -> None:
        """Add a micro-batch of target sequences to the whole gradient and to each target's."""
        head = self._head
        assert head is not None

        def gradient_of(rows: Tensor | slice, weights: Tensor) -> Tensor:
            token_weights = self._token_weights(replace(batch, weights=weights))
            return head_scores.target_gradient(
                hidden[:, rows].flatten(0, 1),
                logits[:, rows].flatten(0, 1),
                labels[rows].T.flatten(),
                token_weights[rows].T.flatten(),  # [s * rows]
                self._shard(head),
            )

        whole = gradient_of(slice(None), batch.weights * shares[batch.sources])
        gradients[0].add_(whole)
        if not self.target_count:
            return
        # Weights of wrong choices are negative.
        present = batch.sources[batch.weights != 0].unique().tolist()
        if len(present) == 1 and shares[present[0]] > TINY_SHARE:
            gradients[1 + present[0]].add_(whole / shares[present[0]])
            return
        for target in present:
            rows = (batch.sources == target).nonzero().squeeze(-1)
            gradients[1 + target].add_(gradient_of(rows, batch.weights))

    def before_forward(self, number: int, batch: MicroBatch) -> None:
        head, direction, layout = self._head, self._direction, self._access.layout
        if head is None:
            return
        head.observer = None
        if direction is None or number >= self._measured:
            return
        chosen, total = self._tokens(number)
        counted, answers = self._counted(batch, number)
        by_target = bool(self._target_directions) and self._scores_targets(number)

        def observe(hidden: Tensor, logits: Tensor, labels: Tensor) -> None:
            seen = (hidden[chosen], logits[chosen], labels[:, chosen])
            shard = self._shard(head)
            if counted is None or answers is None:
                scores = head_scores.sequence_scores(*seen, direction, shard, total)
                token_weights = torch.full(seen[2].shape, 1.0 / total, device=scores.device)
            else:
                present, own = answers.clamp_min(1), counted[:, chosen]
                scores = head_scores.sequence_scores(*seen, direction, shard, present, own)
                token_weights = own / present[:, None]
            layout.context.sum(scores)
            if layout.is_reporter:
                self.sums.add(batch.sources, scores, answers)
            if by_target:
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
        counted = batch.loss_mask[:, self._positions.to(batch.loss_mask.device)]
        return (batch.weights / batch.answers)[:, None] * counted

    def _counted(self, batch: MicroBatch, number: int) -> tuple[Tensor | None, Tensor | None]:
        """[b, s] which of this process's labels count, and [b] how many of the whole sequence's do
        and are looked at; None and None for text."""
        if batch.loss_mask is None:
            return None, None
        stride, start = self._stride(number)
        answers = batch.loss_mask[:, start::stride].sum(1).float()
        return batch.loss_mask[:, self._positions.to(batch.loss_mask.device)], answers

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
        stride, start = self._stride(number)
        if stride == 1:
            return slice(None), length
        total = len(range(start, length, stride))
        if self._access.layout.context.size == 1:
            return slice(start, None, stride), total  # A view; an index would copy the logits.
        chosen = (self._positions % stride == start).nonzero().squeeze(-1)
        return chosen.to(self._access.layout.device), total

    def _stride(self, number: int) -> tuple[int, int]:
        """Every n-th token of micro-batch `number`, and the first one."""
        stride = round(1 / self._access.config.search.score_tokens)
        return stride, self._index(number) % stride

    def _directions_by_name(self) -> list[dict[str, Tensor]]:
        if self._direction is None:
            return []
        return [{"head": each} for each in (self._direction, *self._target_directions)]

    def _load_directions(self, directions: list[dict[str, Tensor]]) -> None:
        if self._head is not None and directions and "head" in directions[0]:
            self._direction, *self._target_directions = (each["head"] for each in directions)


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
        self._target_directions: list[list[Tensor]] = []

    def set_direction(
        self,
        step: int,
        micro_batches: Sequence[MicroBatch],
        shares: Tensor,
        losses: Forward,
        again: Forward,
    ) -> None:
        self._target_directions = []
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
        chosen = [batch for batch in masked if bool(batch.weights.any())]
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
