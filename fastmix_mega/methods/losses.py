"""What the methods have in common that look at the losses of training sequences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.schema import Config
from fastmix_mega.data.run_inputs import Inputs
from fastmix_mega.methods.base import Method, OpenedData
from fastmix_mega.methods.gradients import objective_problems, too_short
from fastmix_mega.mixture.controller import Controller
from fastmix_mega.mixture.outer_schedule import OuterSchedule, Schedule
from fastmix_mega.mixture.sampling import MixturePolicy
from fastmix_mega.training.engine.observation import Observation, SequenceLosses
from fastmix_mega.training.run import Run

if TYPE_CHECKING:
    from fastmix_mega.parallel.layout import Layout
    from fastmix_mega.training.observers import TrainingLosses
    from fastmix_mega.training.outer_loop import OuterLoop


class LossMethod(Method):
    """An update at every step after the warm-up, from the losses of its own sequences."""

    needs_targets = False
    exploration = 0.0
    """1 samples uniformly and weighs the losses; 0 samples from the mixture."""

    @classmethod
    def fix(cls, config: Config) -> Config:
        search = config.search.model_copy(
            update={
                "objective": "mean",
                "target_scores": 0.0,
                "scores": "head",
                "every": 1,
                "exploration": cls.exploration,
            }
        )
        return config.model_copy(update={"search": search})

    def problems(self) -> Iterator[str]:
        yield from objective_problems(self.config)
        schedule = self.schedule()
        if schedule.outer_steps == 0:
            least = schedule.window + schedule.warmup
            yield too_short(self.config.train.steps, schedule.warmup, least)

    def schedule(self) -> Schedule:
        """When the search updates its mixture."""
        search = self.config.search
        return OuterSchedule(
            warmup=search.warmup_steps(),
            every=search.every,
            window=1,
            steps=self.config.train.steps,
        )

    def observes(self, layout: Layout, inputs: Inputs) -> Observation | None:
        del layout, inputs
        return SequenceLosses()

    def controller(self, initial: FloatArray) -> Controller:
        """The rule, at the first mixture [S]."""
        raise NotImplementedError

    def mixer(self, run: Run) -> OuterLoop[TrainingLosses]:
        from fastmix_mega.training.observers import TrainingLosses
        from fastmix_mega.training.outer_loop import OuterLoop

        inputs = run.inputs
        initial = self.initial(OpenedData(inputs.sources, inputs.targets, inputs.tokenizer.sha256))
        return OuterLoop(
            run.layout,
            self.schedule(),
            TrainingLosses(run.engine, run.layout),
            self.controller(initial) if run.layout.is_main else None,
            MixturePolicy(initial, self.config.search.exploration),
        )
