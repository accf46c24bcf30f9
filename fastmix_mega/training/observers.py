"""What a search learns in each window of training steps, as sums by source.

An observer is called when a window starts and when it ends, by every process at the same steps.
Between the two the engine's meters watch the ordinary training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from fastmix_mega.arrays import FloatArray
from fastmix_mega.data.rows import Source
from fastmix_mega.errors import RunFailed
from fastmix_mega.mixture.simplex import ScoreEstimate
from fastmix_mega.mixture.target_weights import TargetResult, TargetScores, TargetWeights
from fastmix_mega.parallel.layout import Layout
from fastmix_mega.resumable import Resumable
from fastmix_mega.training.engine.batches import even_micro_batches
from fastmix_mega.training.engine.engine import TrainingEngine
from fastmix_mega.training.engine.meters import ScoreMeter

REFERENCE_SEQUENCES = 64
"""Sequences of each target whose loss is the reference of `search.target_reference: warmup`."""


class Observer(Protocol):
    """See the module's docstring."""

    seconds: float
    """Time that the present window's start and end took."""

    def start_window(self, step: int, outer_step: int) -> None:
        """Before training step `step`, from 0; `outer_step` updates are made. Collective."""

    def end_window(self, mixture: FloatArray) -> FloatArray:
        """[4, S] sums of the window (see `SourceSums`), in which `mixture` [S] held. Collective."""

    def learn(self, step: int, mixture: FloatArray, estimate: ScoreEstimate) -> None:
        """Rank 0 alone: what the controller made of the window that ended after `step`."""

    def row(self) -> dict[str, Any]:
        """Rank 0 alone: what the observer adds to the window's line of history.jsonl."""

    def state(self) -> dict[str, Any]: ...

    def load(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class TargetSequences:
    """The targets, and how many of their sequences a look at them takes."""

    targets: Sequence[Source]
    per_look: int
    """Sequences of all targets together."""
    micro_batch: int
    """Sequences per forward pass on one rank."""

    @property
    def choices(self) -> list[int]:
        """Per target, sequences per question of multiple choice; 1 for the others."""
        return [target.choices for target in self.targets]

    def named(self, losses: FloatArray) -> dict[str, float]:
        """[K] losses by the targets' names, without those that are not known."""
        pairs = zip(self.targets, losses, strict=True)
        return {target.name: float(loss) for target, loss in pairs if not np.isnan(loss)}


class TrainingLosses(Resumable):
    """The losses of a window's training sequences. The engine observes `SequenceLosses`.

    Args:
        engine: of the run.
        layout: this process's place.
    """

    def __init__(self, engine: TrainingEngine, layout: Layout) -> None:
        assert engine.loss_meter is not None
        self._meter = engine.loss_meter
        self._layout = layout
        self.seconds = 0.0

    def start_window(self, step: int, outer_step: int) -> None:
        del step, outer_step
        self._meter.enabled = True

    def end_window(self, mixture: FloatArray) -> FloatArray:
        del mixture
        started = time.perf_counter()
        self._meter.enabled = False
        sums = self._meter.sums.take(self._layout.sum_over_reporters)
        self.seconds = time.perf_counter() - started
        return sums

    def learn(self, step: int, mixture: FloatArray, estimate: ScoreEstimate) -> None:
        """Losses say nothing of what a share's change would gain."""

    def row(self) -> dict[str, Any]:
        return {"target_loss": {}}


class TargetLossFalls(Resumable):
    """By how much the targets' loss falls in a window; the engine observes nothing.

    The same target sequences are evaluated every time. The fall counts as one observation of the
    source that the window trains on most.

    Args:
        engine: of the run.
        layout: this process's place.
        sequences: of the targets.
        weights: [K] the targets' shares of the objective.
    """

    resumes = ("_losses",)

    def __init__(
        self,
        engine: TrainingEngine,
        layout: Layout,
        sequences: TargetSequences,
        weights: FloatArray,
    ) -> None:
        self._engine = engine
        self._layout = layout
        self._sequences = sequences
        self._weights = weights
        self._losses: FloatArray | None = None
        """[K] where the last window ended."""
        self.seconds = 0.0

    def start_window(self, step: int, outer_step: int) -> None:
        del step
        if outer_step == 0:
            self._losses = self._evaluate()

    def end_window(self, mixture: FloatArray) -> FloatArray:
        assert self._losses is not None
        started = time.perf_counter()
        before, self._losses = self._losses, self._evaluate()
        fall = self._weights @ (before - self._losses) / self._weights.sum()
        sums = np.zeros((4, len(mixture)))
        sums[:, int(mixture.argmax())] = fall, fall**2, 1, 1
        self.seconds = time.perf_counter() - started
        return sums

    def learn(self, step: int, mixture: FloatArray, estimate: ScoreEstimate) -> None:
        """A fall belongs to a whole mixture; it says nothing of single shares."""

    def row(self) -> dict[str, Any]:
        assert self._losses is not None
        return {"target_loss": self._sequences.named(self._losses)}

    def _evaluate(self) -> FloatArray:
        sequences = self._sequences
        per_target = -(-sequences.per_look // len(sequences.targets))
        batches = even_micro_batches(
            sequences.targets, per_target, 0, sequences.micro_batch, self._layout
        )
        return self._engine.evaluate(batches, sequences.choices).losses


@dataclass(frozen=True)
class GradientSettings:
    """How `TargetGradients` observes."""

    weights: TargetWeights
    scores: TargetScores
    """Takes in every window's scores by target."""
    window_rate: Callable[[int], float]
    """The last step of a window -> the sum of its steps' learning rates."""
    one_micro_batch: bool = False
    """Whether only the first micro-batch of a window is scored."""
    in_turn: bool = False
    """Whether every window looks at one target, in turn, instead of at their weighted mean: one
    direction is held at a time, however many targets there are."""


class TargetGradients(Resumable):
    """Alignment scores of training sequences with the targets' gradient.

    The engine observes `HeadScores` or `GradientScores`. A window starts with a look at the
    targets, which sets the direction that its training sequences are compared with.

    Args:
        engine: of the run.
        layout: this process's place.
        sequences: of the targets.
        settings: see there.
        source_count: S.
    """

    resumes = (
        "target_losses",
        "first_target_losses",
        "gains",
        "promised",
        "_target",
        "_shares",
        "_weights",
        "_scores",
    )

    def __init__(
        self,
        engine: TrainingEngine,
        layout: Layout,
        sequences: TargetSequences,
        settings: GradientSettings,
        source_count: int,
    ) -> None:
        assert engine.meter is not None
        self.meter: ScoreMeter = engine.meter
        self.meter.enabled = False
        self._engine = engine
        self._layout = layout
        self._sequences = sequences
        self._settings = settings
        self._weights = settings.weights
        self._scores = settings.scores
        self._shares = self._weights.current
        """[K] the targets' weights in the current window."""
        self._target = 0
        """The first one that the current window looks at."""
        self._target_sums: FloatArray | None = None
        self._row: dict[str, Any] = {}
        self.gains: FloatArray = np.zeros(source_count)
        """[S] the sum of learning rate x score over the steps so far: by how much the target loss
        fell per unit of each source's share, to first order. Rank 0 only."""
        self.promised = 0.0
        """By how much the target loss should have fallen since the first outer step, to first
        order: the sum of learning rate x the mixture's score. Rank 0 only."""
        self.first_target_losses: FloatArray = np.full(len(sequences.targets), np.nan)
        """[K] when each target was looked at first; NaN before."""
        self.target_losses: FloatArray = np.full(len(sequences.targets), np.nan)
        """[K] when each was looked at last; NaN before."""
        self.seconds = 0.0

    def start_window(self, step: int, outer_step: int) -> None:
        """Take the target's gradient.

        Raises:
            RunFailed: on every process, if a target's loss is not finite.
        """
        started = time.perf_counter()
        sequences, count = self._sequences, len(self._sequences.targets)
        self._measure_reference()
        self._shares = self._weights.current
        looked, turn = list(range(count)), outer_step
        if self._settings.in_turn:
            looked, turn = [outer_step % count], outer_step // count
        self._target = looked[0]
        targets = [sequences.targets[number] for number in looked]
        per_target = -(-sequences.per_look // len(targets))
        batches = even_micro_batches(targets, per_target, turn, sequences.micro_batch, self._layout)
        losses = self._engine.measure_target(
            step, batches, self._shares[looked], [target.choices for target in targets]
        )
        self.target_losses = self.target_losses.copy()
        self.target_losses[looked] = losses
        self._require_finite(step, looked)
        first = np.isnan(self.first_target_losses)
        self.first_target_losses = np.where(first, self.target_losses, self.first_target_losses)
        self._move_targets()

        self.meter.enabled = True
        if self._settings.one_micro_batch:
            self.meter.scores_left = 1 if self._layout.data.rank == 0 else 0
        self.seconds = time.perf_counter() - started

    def _require_finite(self, step: int, looked: Sequence[int]) -> None:
        targets, losses = self._sequences.targets, self.target_losses
        wrong = [targets[number].name for number in looked if not np.isfinite(losses[number])]
        if not wrong:
            return
        bad = ", ".join(wrong)
        raise RunFailed(
            f"stopped before step {step + 1}: the loss of the target {bad} is not a finite "
            "number, so that no mixture can follow from it. The model has diverged, or the "
            "target's file is damaged. Lower train.schedule.peak, run `fastmix data verify "
            "--deep` on the target, and start again; the last checkpoint is kept"
        )

    def _measure_reference(self) -> None:
        """Once, where the targets' losses at the warm-up's end are the reference. Collective."""
        weights, sequences = self._weights, self._sequences
        if weights.step == 0 or weights.reference is not None:
            return
        batches = even_micro_batches(
            sequences.targets, REFERENCE_SEQUENCES, 0, sequences.micro_batch, self._layout
        )
        weights.reference = self._engine.evaluate(batches, sequences.choices).losses

    def _move_targets(self) -> None:
        """The weights of the next window, from this one's losses. Collective."""
        weights = self._weights
        if weights.step == 0:
            return
        # Rank 0's losses decide: another order of sums must not let the processes drift apart.
        losses = torch.from_numpy(self.target_losses).to(self._layout.device)
        weights.update(self._layout.broadcast_from_main(losses).cpu().numpy())

    def end_window(self, mixture: FloatArray) -> FloatArray:
        del mixture
        started = time.perf_counter()
        self.meter.enabled = False
        sums = self.meter.sums.take(self._layout.sum_over_reporters)
        self._target_sums = self._take_target_sums(sums)
        self.seconds += time.perf_counter() - started
        return sums

    def _take_target_sums(self, sums: FloatArray) -> FloatArray | None:
        """[rows, K, S] sums of every target by itself; None if not measured. Collective.

        Args:
            sums: [rows, S] of the objective, which are those of a single target.
        """
        count = len(self._sequences.targets)
        if count == 1:
            return sums[:, None]
        if self._settings.in_turn:
            placed = np.zeros((len(sums), count, sums.shape[1]))
            placed[:, self._target] = sums
            return placed
        if not self.meter.target_count:
            return None
        found = self.meter.target_sums.take(self._layout.sum_over_reporters)
        return found.reshape(len(found), self.meter.target_count, -1)

    def learn(self, step: int, mixture: FloatArray, estimate: ScoreEstimate) -> None:
        rate = self._settings.window_rate(step)
        self.gains = self.gains + rate * estimate.mean
        self.promised += rate * float(mixture @ estimate.mean)
        by_target = self._scores.update(self._target_sums, self._shares, rate)
        shares = self._shares / self._shares.sum()
        self._row = {"target_loss": self._sequences.named(self.target_losses)}
        if np.isnan(self.target_losses).any():
            return  # What belongs to all targets waits until each was looked at.
        self._row["target_weights"] = shares.tolist()
        if by_target is not None:
            self._row["target_scores"] = by_target.mean.tolist()
            self._row["target_score_stderr"] = by_target.standard_error.tolist()
        reference = self._weights.reference
        if self._weights.step > 0 and reference is not None:
            self._row["target_reference"] = reference.tolist()

    def row(self) -> dict[str, Any]:
        return self._row

    def target_result(self) -> TargetResult | None:
        """What is known of each target; on rank 0 only."""
        return self._scores.result()

    @property
    def gain_scale(self) -> float:
        """The fall of the target loss that was seen, as a share of the promised one.

        Steps are no infinitesimal ones, and their gradients are noisy: to first order the loss
        falls by several times what it does. Gains are scaled down by what the search itself saw.
        """
        if self.promised <= 0 or np.isnan(self.first_target_losses).any():
            return 1.0
        shares = self._shares / self._shares.sum()
        seen = float(shares @ (self.first_target_losses - self.target_losses))
        return max(0.0, seen) / self.promised
