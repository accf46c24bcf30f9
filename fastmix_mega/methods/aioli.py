"""`method: aioli`: in every round each source is probed, then the new mixture is trained on.

Aioli (Chen et al., 2024, arXiv 2411.05735). The targets are evaluated where windows meet, on the
same sequences every time, as the paper's validation set.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.base import PositiveFloat, PositiveInt, Section
from fastmix_mega.config.schema import Config
from fastmix_mega.methods.base import (
    Method,
    OpenedData,
    target_weights,
    too_few_target_sequences,
)
from fastmix_mega.methods.gradients import objective_problems, too_short
from fastmix_mega.mixture.controller import AverageController, MixtureEstimate
from fastmix_mega.mixture.outer_schedule import RoundSchedule
from fastmix_mega.mixture.sampling import MixturePolicy
from fastmix_mega.mixture.simplex import DecayedSums, ScoreEstimate, softmax
from fastmix_mega.training.run import Run

if TYPE_CHECKING:
    from fastmix_mega.training.observers import TargetLossFalls
    from fastmix_mega.training.outer_loop import OuterLoop


class AioliSection(Section):
    """`method: aioli` only: in every round each source is probed, then the new mixture trained."""

    step: PositiveFloat = 1.0
    """Of the mixture's logarithms, per unit of the normalised effects (the paper's eta)."""
    probe_share: Annotated[float, Field(gt=0.5, le=1)] = 0.75
    """Of the source that is probed."""
    probe_steps: PositiveInt = 2
    """Training steps of one probe."""
    sweeps: PositiveInt = 1
    """Times that every source is probed in a round."""
    free_steps: PositiveInt = 16
    """Training steps at the mixture itself, at the end of every round."""


class Aioli(Method):
    """Samples from the mixture, probes included."""

    name = "aioli"
    Settings = AioliSection

    @classmethod
    def fix(cls, config: Config) -> Config:
        search = {"objective": "mean", "target_scores": 0.0, "scores": "head", "exploration": 0.0}
        return config.model_copy(update={"search": config.search.model_copy(update=search)})

    def problems(self) -> Iterator[str]:
        yield from too_few_target_sequences(self.config)
        yield from objective_problems(self.config)
        schedule = self.schedule()
        if schedule.outer_steps == 0:
            least = schedule.window + schedule.warmup
            yield too_short(self.config.train.steps, schedule.warmup, least)

    def schedule(self) -> RoundSchedule:
        """Rounds of probes and a free window."""
        section: AioliSection = self.settings
        probes = [section.probe_steps] * (len(self.config.sources) * section.sweeps)
        warmup = self.config.search.warmup_steps()
        return RoundSchedule(warmup, (*probes, section.free_steps), self.config.train.steps)

    def mixer(self, run: Run) -> OuterLoop[TargetLossFalls]:
        from fastmix_mega.training.observers import TargetLossFalls, TargetSequences
        from fastmix_mega.training.outer_loop import OuterLoop

        config, inputs = run.config, run.inputs
        initial = self.initial(OpenedData(inputs.sources, inputs.targets, inputs.tokenizer.sha256))
        controller = AioliController(initial, self.settings, config.seed)
        sequences = TargetSequences(
            inputs.targets, config.search.target_batch, config.train.micro_batch
        )
        return OuterLoop(
            run.layout,
            self.schedule(),
            TargetLossFalls(run.engine, run.layout, sequences, target_weights(config)),
            controller if run.layout.is_main else None,
            MixturePolicy(initial, config.search.exploration),
            # A function of the seed: every process knows it.
            first_window=controller.mixture,
        )

    def cost(self, run: Run, outer_steps: int, steps: int) -> float:
        del steps
        evaluated = (outer_steps + 1) * run.config.search.target_batch
        return 1.0 + self.operations(run).forward_passes(evaluated)


class AioliController(AverageController):
    """Rounds of probing windows, one a source and sweep in random order, and a free window.

    Args:
        initial: [S] the first mixture.
        section: step, share and number of the probes.
        seed: of the order of the probes.
    """

    resumes = (*AverageController.resumes, "_base")

    def __init__(self, initial: FloatArray, section: AioliSection, seed: int = 0) -> None:
        super().__init__(initial)
        self._section, self._seed = section, seed
        self._base = initial
        """[S] p^t, which the free windows train on."""
        self.mixture = self._at(0)

    @property
    def _windows(self) -> int:
        return len(self.initial) * self._section.sweeps + 1

    def probed(self, outer_step: int) -> int | None:
        """The source of a window; None for a free one."""
        turn, place = divmod(outer_step, self._windows)
        sweep, place = divmod(place, len(self.initial))
        if sweep == self._section.sweeps:
            return None
        key = [self._seed, turn * self._section.sweeps + sweep]
        random = np.random.Generator(np.random.Philox(key=key))
        return int(random.permutation(len(self.initial))[place])

    def _at(self, outer_step: int) -> FloatArray:
        source = self.probed(outer_step)
        if source is None:
            return self._base
        return aioli_probe(len(self.initial), source, self._section.probe_share)

    def update(self, sums: FloatArray) -> ScoreEstimate:
        """`sums` hold one observation: the objective's fall in the window, at any source."""
        source, fall = self.probed(self.outer_step), float(sums[0].sum())
        placed = np.zeros((4, len(self.initial)))
        if source is not None:
            share = fall / self._section.sweeps
            self._memory = self._memory + share * (np.arange(len(placed[0])) == source)
            placed[:, source] = fall, fall**2, 1, 1
        estimate = DecayedSums.zeros(len(self.initial)).add(placed, 0.0).estimate()

        self.outer_step += 1
        if self.outer_step % self._windows == self._windows - 1:
            effects = aioli_effects(self._memory, self._section.probe_share)
            self._base = aioli_mixture(self._base, effects, self._section.step)
            self._memory = np.zeros(len(self.initial))
            self._total = self._total + self._base
        self.mixture = self._at(self.outer_step)
        return estimate

    def result(self) -> MixtureEstimate:
        return self._mean_of((self.outer_step + 1) // self._windows)


def aioli_effects(drops: FloatArray, share: float) -> FloatArray:
    """Aioli, LearnParams (its Algorithm 2): A from the loss drops under S probing mixtures.

    Probe j gives source j the `share` and the others equal parts, so that drops = M A with M the
    probes' mixtures.

    Args:
        drops: [S] fall of the objective while each source was probed.
        share: 1 probes a source alone.
    """
    count = len(drops)
    probes = np.stack([aioli_probe(count, source, share) for source in range(count)])
    return np.asarray(np.linalg.solve(probes, drops), np.float64)


def aioli_probe(source_count: int, source: int, share: float) -> FloatArray:
    """[S] the probing mixture of a source."""
    probe = np.full(source_count, (1 - share) / max(1, source_count - 1))
    probe[source] = share if source_count > 1 else 1.0
    return probe


def aioli_mixture(mixture: FloatArray, effects: FloatArray, step: float) -> FloatArray:
    """Aioli, Algorithm 1: mixture * exp(step * A), normalised, with A scaled as its code does.

    Negative entries are lifted to 0 and A is made to sum to 1, so that the large falls of the first
    steps do not outweigh all that follows.
    """
    lifted = effects - min(0.0, float(effects.min()))
    return softmax(np.log(mixture) + step * lifted / max(float(lifted.sum()), 1e-300))
