"""The outer loop of the methods that look at losses: odm, doremi and aioli.

Like `outer.py`'s: every process measures, rank 0's controller decides, everybody hears of it. odm
and doremi update at every step from the sequences that were just trained; aioli evaluates the
targets where its windows meet, on the same sequences every time, as its paper's validation set.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.schema import Config
from fastmix_mega.data.rows import Source
from fastmix_mega.methods.fastmix import MixtureEstimate
from fastmix_mega.methods.online import controller_of, schedule_of
from fastmix_mega.methods.start import SearchStart
from fastmix_mega.mixture.sampling import MixturePolicy
from fastmix_mega.parallel.layout import Layout
from fastmix_mega.training.engine.batches import even_micro_batches
from fastmix_mega.training.engine.engine import TrainingEngine
from fastmix_mega.training.outer_loop import announced, history_row


class LossLoop:
    """As `OuterLoop`.

    Args:
        config: of `as_method`.
        layout: this process's place.
        engine: with a loss meter, or for aioli without any.
        targets: opened, in the configuration's order.
        start: the first mixture.
    """

    gains: FloatArray | None = None
    """Losses say nothing of what a share's change would gain."""
    gain_scale = 1.0
    converged = False
    """These methods run to their end."""

    def __init__(
        self,
        config: Config,
        layout: Layout,
        engine: TrainingEngine,
        targets: Sequence[Source],
        start: SearchStart,
    ) -> None:
        self.config = config
        self.layout = layout
        self.engine = engine
        self.targets = list(targets)
        self.schedule = schedule_of(config)
        self.outer_step = 0
        self.policy = MixturePolicy(start.initial, config.search.exploration)
        self.controller = controller_of(config, start) if layout.is_main else None
        self.target_losses: FloatArray | None = None
        """[targets] where the last window ended; aioli only."""
        self._shares = np.array([target.weight for target in config.targets])

    def before_step(self, step: int) -> None:
        """Begin a window if one starts here. Collective."""
        starts = self.schedule.measures_target(step)
        meter = self.engine.loss_meter
        if meter is not None:
            meter.enabled = starts
        elif starts and self.outer_step == 0:
            self.target_losses = self._evaluate()
            self._take_mixture()

    def after_step(self, step: int) -> dict[str, Any] | None:
        """Update the mixture if a window ends here. Collective.

        Returns:
            The line for history.jsonl on rank 0 (without its token count), None otherwise.
        """
        if not self.schedule.updates_after(step):
            return None
        started = time.perf_counter()
        sums = self._observe()
        estimate = None if self.controller is None else self.controller.update(sums)
        sampled = self.policy
        self.outer_step += 1
        self._take_mixture()
        if estimate is None:
            return None
        losses = [] if self.target_losses is None else self.target_losses.tolist()
        names = [target.name for target in self.targets][: len(losses)]
        return history_row(self.outer_step, step, self.policy, sampled, estimate, sums) | {
            "target_loss": dict(zip(names, losses, strict=True)),
            "seconds": round(time.perf_counter() - started, 4),
        }

    def _observe(self) -> FloatArray:
        """[4, S] of the window. Collective."""
        meter = self.engine.loss_meter
        if meter is not None:
            return meter.sums.take(self.layout.sum_over_reporters)
        assert self.target_losses is not None
        before, self.target_losses = self.target_losses, self._evaluate()
        fall = self._shares @ (before - self.target_losses) / self._shares.sum()
        sums = np.zeros((4, len(self.policy.mixture)))
        sums[:, int(self.policy.mixture.argmax())] = fall, fall**2, 1, 1
        return sums

    def _evaluate(self) -> FloatArray:
        """[targets] losses on the same `search.target_batch` sequences every time. Collective."""
        per_target = -(-self.config.search.target_batch // len(self.targets))
        batches = even_micro_batches(
            self.targets, per_target, 0, self.config.train.micro_batch, self.layout
        )
        choices = [target.choices for target in self.targets]
        return self.engine.evaluate(batches, choices).losses

    def _take_mixture(self) -> None:
        own = self.controller
        told = None if own is None else np.concatenate(([own.outer_step], own.mixture))
        mixture = announced(self.layout, self.outer_step, len(self.policy.mixture), told)
        self.policy = self.policy.moved_to(mixture)

    def result(self) -> MixtureEstimate:
        """The search's answer; on rank 0 only."""
        assert self.controller is not None
        return self.controller.result()

    def target_result(self) -> None:
        """These methods score no target by itself."""

    def state(self) -> dict[str, Any]:
        """This process's part of a checkpoint."""
        return {
            "outer_step": self.outer_step,
            "mixture": self.policy.mixture,
            "target_losses": self.target_losses,
            "controller": None if self.controller is None else self.controller.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.outer_step = state["outer_step"]
        self.policy = self.policy.moved_to(state["mixture"])
        self.target_losses = state["target_losses"]
        if self.controller is not None:
            self.controller.load(state["controller"])
