"""What the methods have in common that compare sources' gradients with the targets'."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.schema import Config
from fastmix_mega.data.rows import any_masked
from fastmix_mega.data.run_inputs import Inputs
from fastmix_mega.methods.base import Method, target_weights, too_few_target_sequences
from fastmix_mega.methods.result import Answer
from fastmix_mega.methods.scored_parameters import scored_parameter_problems
from fastmix_mega.mixture.outer_schedule import OuterSchedule, Schedule
from fastmix_mega.mixture.target_weights import TargetScores, TargetWeights
from fastmix_mega.training.engine.learning_rate import learning_rate
from fastmix_mega.training.engine.observation import Observation, scores_of
from fastmix_mega.training.run import Run

if TYPE_CHECKING:
    from fastmix_mega.parallel.layout import Layout
    from fastmix_mega.training.observers import TargetGradients
    from fastmix_mega.training.outer_loop import OuterLoop


class GradientMethod(Method):
    """Scores of training sequences along the targets' gradient, window by window."""

    def observes(self, layout: Layout, inputs: Inputs) -> Observation | None:
        del layout, inputs
        return scores_of(self.scores)

    @property
    def scores(self) -> str:
        """What `search.scores` means here."""
        return self.config.search.scores or "head"

    def problems(self) -> Iterator[str]:
        yield from too_few_target_sequences(self.config)
        yield from objective_problems(self.config)
        yield from scored_parameter_problems(self.config, self.scores)

    def window(self) -> int:
        """Training steps that are scored in every window."""
        return self.config.search.every

    def schedule(self, warmup: int) -> OuterSchedule:
        """When the search updates its mixture, after `warmup` steps."""
        return OuterSchedule(
            warmup=warmup,
            every=self.config.search.every,
            window=self.window(),
            steps=self.config.train.steps,
        )

    def length_problems(self, schedule: Schedule) -> Iterator[str]:
        """Whether a run is long enough for one update."""
        if schedule.outer_steps == 0:
            least = schedule.window + schedule.warmup
            yield too_short(self.config.train.steps, schedule.warmup, least)

    def observer(
        self,
        run: Run,
        schedule: Schedule,
        one_micro_batch: bool = False,
        in_turn: bool = False,
    ) -> TargetGradients:
        """Observes the scores of a run's windows.

        Args:
            run: its parts.
            schedule: of the windows.
            one_micro_batch: whether only the first micro-batch of a window is scored.
            in_turn: whether every window looks at one target, in turn.
        """
        from fastmix_mega.training.observers import (
            GradientSettings,
            TargetGradients,
            TargetSequences,
        )

        search, train, targets = run.config.search, run.config.train, run.inputs.targets
        minimax = search.objective == "minimax"
        settings = GradientSettings(
            TargetWeights(
                target_weights(run.config),
                search.target_step if minimax else 0.0,
                _given_reference(run.config),
            ),
            TargetScores(len(targets), len(run.config.sources), search.decay, schedule.outer_steps),
            window_rate=lambda last: window_rate(run.config, last + 1 - search.every),
            one_micro_batch=one_micro_batch,
            in_turn=in_turn,
        )
        sequences = TargetSequences(targets, search.target_batch, train.micro_batch)
        return TargetGradients(
            run.engine, run.layout, sequences, settings, source_count=len(run.config.sources)
        )

    def answer(self, run: Run, mixer: OuterLoop[TargetGradients], steps: int) -> Answer:
        observer = mixer.observer
        return replace(
            super().answer(run, mixer, steps),
            gains=observer.gains * observer.gain_scale,
            targets=observer.target_result() if self.given.targets else None,
            more={"gain_scale": round(observer.gain_scale, 6)},
        )

    def cost(self, run: Run, outer_steps: int, steps: int) -> float:
        search, train, operations = run.config.search, run.config.train, self.operations(run)
        target_sequences = outer_steps * search.target_batch
        by_target = search.target_scores if run.config.separate_targets else 0.0
        if self.scores == "head":
            share = search.scored_share(any_masked(run.inputs.sources)) * (1 + by_target)
            scored = self.scored_sequences(outer_steps)
            extra = operations.head_scores(target_sequences, scored * share)
        else:
            passes = 2 if by_target else 1
            extra = operations.backward_passes(passes * target_sequences)
        return steps / train.steps + extra

    def scored_sequences(self, outer_steps: int) -> int:
        """Training sequences that are scored in so many windows."""
        return outer_steps * self.config.search.every * self.config.train.global_batch


def window_rate(config: Config, first: int) -> float:
    """The sum of the learning rates of `search.every` steps from `first` on."""
    train = config.train
    steps = range(first, first + config.search.every)
    return sum(learning_rate(train.schedule, step, train.steps) for step in steps)


def too_short(steps: int, warmup: int, least: int) -> str:
    """The words about a run without room for an update."""
    return (
        f"search: {steps} steps leave no room for an update after {warmup} steps of warm-up; "
        f"train at least {least} steps"
    )


def objective_problems(config: Config) -> Iterator[str]:
    """What is wrong with `search.objective` and its keys."""
    search, names = config.search, {target.name for target in config.targets}
    if search.objective == "minimax" and len(names) < 2:
        yield "search.objective: minimax needs at least two targets; use mean"
    if search.target_reference == "warmup":
        return
    if search.objective != "minimax":
        yield "search.target_reference is of search.objective: minimax; leave it out"
    given = set(search.target_reference)
    for name in sorted(names - given):
        yield f"search.target_reference: no loss for the target {name}"
    for name in sorted(given - names):
        yield f"search.target_reference: {name} is no target"


def _given_reference(config: Config) -> FloatArray | None:
    """[K] the targets' reference losses where the configuration gives them."""
    given = config.search.target_reference
    if isinstance(given, str):
        return None
    return np.array([given[target.name] for target in config.targets])
