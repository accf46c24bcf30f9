"""Two ways to measure <v, gradient> per source during ordinary training, behind one type.

A meter is given target sequences, which sets the direction v, and is then given every training
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

from fastmix_mega.config.schema import Config
from fastmix_mega.parallel.layout import Layout
from fastmix_mega.training.engine import head_scores
from fastmix_mega.training.engine.batches import MicroBatch
from fastmix_mega.training.engine.head_scores import VocabularyShard
from fastmix_mega.training.engine.optimizer_access import OptimizerAccess
from fastmix_mega.training.engine.passes import Forward, Passes
from fastmix_mega.training.engine.sums import SourceSums


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


class Meter:
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
