"""The outer loop of a search: target gradient, scores, update, broadcast.

Every process measures; the sums meet in one all-reduce of S-vectors; rank 0's controller updates
the mixture and broadcasts it with the outer step's number, which every process checks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.schema import Config
from fastmix_mega.data.rows import Source
from fastmix_mega.errors import RunFailed
from fastmix_mega.methods.fastmix import FastMixController, MixtureEstimate
from fastmix_mega.methods.online import controller_of, schedule_of
from fastmix_mega.methods.start import SearchStart
from fastmix_mega.mixture.sampling import MixturePolicy
from fastmix_mega.mixture.simplex import ScoreEstimate, effective_sources, entropy
from fastmix_mega.mixture.target_weights import TargetResult, TargetScores, TargetWeights
from fastmix_mega.parallel.layout import Layout
from fastmix_mega.training.engine.batches import even_micro_batches
from fastmix_mega.training.engine.engine import TrainingEngine
from fastmix_mega.training.engine.schedule import learning_rate

REFERENCE_SEQUENCES = 64
"""Sequences of each target whose loss is the reference of `search.target_reference: warmup`."""


class OuterLoop:
    """Call `before_step` and `after_step` around every training step; read `policy` between.

    Args:
        config: the search.
        layout: this process's place.
        engine: with a meter.
        targets: opened, in the configuration's order.
        start: the first mixture, the limits, and what is kept of an old mixture.
    """

    def __init__(
        self,
        config: Config,
        layout: Layout,
        engine: TrainingEngine,
        targets: Sequence[Source],
        start: SearchStart,
    ) -> None:
        assert engine.meter is not None
        self.config = config
        self.layout = layout
        self.engine = engine
        self.meter = engine.meter
        self.targets = list(targets)
        self._choices = [target.choices for target in targets]
        self.schedule = schedule_of(config, start.from_pairs)
        tied = None if start.reuse is None else start.reuse.tied
        explored = None if tied is None else tied.even_law
        self.policy = MixturePolicy(start.initial, config.search.exploration, explored)
        self.outer_step = 0
        # Only rank 0 decides; the others learn the outcome.
        self.controller = controller_of(config, start) if layout.is_main else None
        self.gains: FloatArray = np.zeros(len(start.initial))
        """[S] the sum of learning rate x score over the steps so far: by how much the target loss
        fell per unit of each source's share, to first order. Rank 0 only."""
        search = config.search
        minimax = search.objective == "minimax"
        self.target_weights = TargetWeights(
            np.array([target.weight for target in config.targets]),
            search.target_step if minimax else 0.0,
            _given_reference(config),
        )
        self.target_scores = TargetScores(
            len(targets), len(start.initial), search.decay, self.schedule.outer_steps
        )
        """Rank 0's is told of every outer step."""
        self._shares = self.target_weights.current
        """[K] the targets' weights in the current window."""
        self.promised = 0.0
        """By how much the target loss should have fallen since the first outer step, to first
        order: the sum of learning rate x the mixture's score. Rank 0 only."""
        self.first_target_losses: NDArray[np.float64] = np.zeros(0)
        """[K] at the first outer step."""
        self.target_losses: NDArray[np.float64] = np.zeros(len(targets))
        self.converged = False
        """Whether the mixture has settled, so that the search may end; on every process alike."""
        self.seconds = 0.0
        """Time spent in the current outer step, the scoring of training steps left out."""
        self.meter.enabled = False

    def before_step(self, step: int) -> None:
        """Take the target's gradient if a window starts here. Collective.

        Raises:
            RunFailed: on every process, if a target's loss is not finite.
        """
        if not self.schedule.measures_target(step):
            return
        started = time.perf_counter()
        per_target = -(-self.config.search.target_batch // len(self.targets))
        batches = even_micro_batches(
            self.targets, per_target, self.outer_step, self.config.train.micro_batch, self.layout
        )
        self._measure_reference()
        self._shares = self.target_weights.current
        self.target_losses = self.engine.measure_target(step, batches, self._shares, self._choices)
        if not np.isfinite(self.target_losses).all():
            pairs = zip(self.targets, self.target_losses, strict=True)
            bad = ", ".join(target.name for target, loss in pairs if not np.isfinite(loss))
            raise RunFailed(
                f"stopped before step {step + 1}: the loss of the target {bad} is not a finite "
                "number, so that no mixture can follow from it. The model has diverged, or the "
                "target's file is damaged. Lower train.schedule.peak, run `fastmix data verify "
                "--deep` on the target, and start again; the last checkpoint is kept"
            )
        if not len(self.first_target_losses):
            self.first_target_losses = self.target_losses.copy()
        self._move_targets()
        self.meter.enabled = True
        if self.config.method == "reference":
            self.meter.scores_left = 1 if self.layout.data.rank == 0 else 0
        self.seconds = time.perf_counter() - started

    def _measure_reference(self) -> None:
        """Once, where the targets' losses at the warm-up's end are the reference. Collective."""
        weights = self.target_weights
        if weights.step == 0 or weights.reference is not None:
            return
        batches = even_micro_batches(
            self.targets, REFERENCE_SEQUENCES, 0, self.config.train.micro_batch, self.layout
        )
        weights.reference = self.engine.evaluate(batches, self._choices).losses

    def _move_targets(self) -> None:
        """The weights of the next window, from this one's losses. Collective."""
        weights = self.target_weights
        if weights.step == 0:
            return
        # Rank 0's losses decide: another order of sums must not let the processes drift apart.
        losses = torch.from_numpy(self.target_losses).to(self.layout.device)
        weights.update(self.layout.broadcast_from_main(losses).cpu().numpy())

    def after_step(self, step: int) -> dict[str, Any] | None:
        """Update the mixture if a window ends here. Collective.

        Returns:
            The line for history.jsonl on rank 0 (without its token count), None otherwise.
        """
        if not self.schedule.updates_after(step):
            return None
        started = time.perf_counter()
        self.meter.enabled = False
        sums = self.meter.sums.take(self.layout.sum_over_reporters)
        target_sums = self._take_target_sums(sums)
        estimate = None if self.controller is None else self.controller.update(sums)
        by_target = None
        if estimate is not None:
            train = self.config.train
            window = range(step + 1 - self.config.search.every, step + 1)
            rates = [learning_rate(train.schedule, each, train.steps) for each in window]
            self.gains = self.gains + sum(rates) * estimate.mean
            self.promised += sum(rates) * float(self.policy.mixture @ estimate.mean)
            by_target = self.target_scores.update(target_sums, self._shares, sum(rates))
        sampled = self.policy
        self._broadcast()
        self.seconds += time.perf_counter() - started
        if estimate is None:
            return None
        assert self.controller is not None
        reference = self.target_weights.reference
        shares = self._shares / self._shares.sum()
        row = history_row(self.outer_step, step, self.policy, sampled, estimate, sums)
        row |= {
            "mixture_stderr": self.controller.standard_errors.tolist(),
            "target_loss": {
                target.name: float(loss)
                for target, loss in zip(self.targets, self.target_losses, strict=True)
            },
            "target_weights": shares.tolist(),
            "seconds": round(self.seconds, 4),
        }
        if by_target is not None:
            row["target_scores"] = by_target.mean.tolist()
            row["target_score_stderr"] = by_target.standard_error.tolist()
        if self.target_weights.step > 0 and reference is not None:
            row["target_reference"] = reference.tolist()
        return row

    def _take_target_sums(self, sums: FloatArray) -> FloatArray | None:
        """[rows, K, S] sums of every target by itself; None if not measured. Collective.

        Args:
            sums: [rows, S] of the objective, which are those of a single target.
        """
        meter = self.meter
        if len(self.targets) == 1:
            return sums[:, None]
        if not meter.target_count:
            return None
        found = meter.target_sums.take(self.layout.sum_over_reporters)
        return found.reshape(len(found), meter.target_count, -1)

    def _broadcast(self) -> None:
        """Rank 0 announces the outer step's number, whether the mixture has settled, and the
        mixture; everyone checks the number."""
        own, told = self.controller, None
        if own is not None:
            told = np.concatenate(([own.outer_step, self._has_settled()], own.mixture))
        self.outer_step += 1
        received = announced(self.layout, self.outer_step, 1 + len(self.policy.mixture), told)
        self.converged = bool(received[0])
        self.policy = self.policy.moved_to(received[1:])

    def _has_settled(self) -> bool:
        """On rank 0."""
        tolerance = self.config.search.stop_when_converged
        controller = self.controller
        if tolerance == 0 or not isinstance(controller, FastMixController):
            return False
        return controller.drift <= tolerance

    def result(self) -> MixtureEstimate:
        """The search's answer; on rank 0 only."""
        assert self.controller is not None
        return self.controller.result()

    def target_result(self) -> TargetResult | None:
        """What is known of each target; on rank 0 only."""
        return self.target_scores.result()

    @property
    def gain_scale(self) -> float:
        """The fall of the target loss that was seen, as a share of the promised one.

        Steps are no infinitesimal ones, and their gradients are noisy: to first order the loss
        falls by several times what it does. Gains are scaled down by what the search itself saw.
        """
        if self.promised <= 0 or not len(self.first_target_losses):
            return 1.0
        shares = self._shares / self._shares.sum()
        seen = float(shares @ (self.first_target_losses - self.target_losses))
        return max(0.0, seen) / self.promised

    def state(self) -> dict[str, Any]:
        """This process's part of a checkpoint, but for the meter."""
        return {
            "outer_step": self.outer_step,
            "converged": self.converged,
            "mixture": self.policy.mixture,
            "target_losses": self.target_losses,
            "gains": self.gains,
            "promised": self.promised,
            "first_target_losses": self.first_target_losses,
            "target_weights": self.target_weights.state(),
            "shares": self._shares,
            "target_scores": self.target_scores.state(),
            "controller": None if self.controller is None else self.controller.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.outer_step = state["outer_step"]
        self.converged = state["converged"]
        self.policy = self.policy.moved_to(state["mixture"])
        self.target_losses = state["target_losses"]
        self.gains = state["gains"]
        self.promised = state["promised"]
        self.first_target_losses = state["first_target_losses"]
        self.target_weights.load(state["target_weights"])
        self._shares = state["shares"]
        self.target_scores.load(state["target_scores"])
        if self.controller is not None:
            self.controller.load(state["controller"])


def history_row(
    outer_step: int,
    step: int,
    policy: MixturePolicy,
    sampled: MixturePolicy,
    estimate: ScoreEstimate,
    sums: FloatArray,
) -> dict[str, Any]:
    """What every method tells of an outer step in history.jsonl.

    Args:
        outer_step: its number, from 1.
        step: the training step that completed its window, from 0.
        policy: after the update.
        sampled: before it.
        estimate: of the scores.
        sums: [4, S] of the window (see `SourceSums`).
    """
    return {
        "outer_step": outer_step,
        "step": step + 1,
        "mixture": policy.mixture.tolist(),
        "sampling": sampled.law.tolist(),
        "scores": estimate.mean.tolist(),
        "score_stderr": estimate.standard_error.tolist(),
        "counts": sums[2].astype(int).tolist(),
        "entropy": entropy(policy.mixture),
        "effective_sources": effective_sources(policy.mixture),
    }


def announced(layout: Layout, expected: int, size: int, told: FloatArray | None) -> FloatArray:
    """[size] what rank 0 announces after its outer step's number. Collective.

    Args:
        layout: this process's place.
        expected: the outer step's number by this process's own count.
        size: numbers that follow it.
        told: on rank 0, [1 + size]: the number and what follows.

    Raises:
        RuntimeError: if the numbers differ.
    """
    message = torch.zeros(1 + size, dtype=torch.float64, device=layout.device)
    if told is not None:
        message.copy_(torch.from_numpy(told))
    received: FloatArray = layout.broadcast_from_main(message).cpu().numpy()
    if int(received[0]) != expected:
        raise RuntimeError(
            f"rank {layout.rank} is at outer step {expected}, but rank 0 announced "
            f"{int(received[0])}: the processes have lost step with each other"
        )
    return received[1:].copy()


def _given_reference(config: Config) -> FloatArray | None:
    """[K] the targets' reference losses where the configuration gives them."""
    given = config.search.target_reference
    if isinstance(given, str):
        return None
    return np.array([given[target.name] for target in config.targets])
