"""`method: doge`: sources whose raw gradients agree with the objective's gain weight.

DoGE (Fan et al., 2024, arXiv 2310.15393). Without targets the objective is the sum over the sources
(the paper's universal generalisation), measured on samples of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.base import PositiveFloat, Section
from fastmix_mega.config.schema import Config
from fastmix_mega.config.sections import TargetConfig
from fastmix_mega.methods.base import OpenedData
from fastmix_mega.methods.gradients import GradientMethod, window_rate
from fastmix_mega.methods.result import Answer
from fastmix_mega.mixture.controller import AverageController
from fastmix_mega.mixture.sampling import MixturePolicy
from fastmix_mega.mixture.simplex import softmax
from fastmix_mega.training.run import Run

if TYPE_CHECKING:
    from fastmix_mega.training.observers import TargetGradients
    from fastmix_mega.training.outer_loop import OuterLoop


class DoGESection(Section):
    """`method: doge` only: sources whose gradients agree with the objective's gain weight."""

    mu: PositiveFloat = 0.05
    """Regularisation: an update is learning rate * alignment / mu."""


class DoGE(GradientMethod):
    """Raw gradients of all parameters; uniform sampling with weighted losses."""

    name = "doge"
    Settings = DoGESection
    needs_targets = False

    @classmethod
    def fix(cls, config: Config) -> Config:
        search = {
            "objective": "mean",
            "target_scores": 0.0,
            "scores": "all",
            "precondition": False,
            "exploration": 1.0,
        }
        update: dict[str, Any] = {"search": config.search.model_copy(update=search)}
        if not config.targets:
            update["targets"] = [
                TargetConfig(name=f"{source.name}.target", prefix=source.prefix)
                for source in config.sources
            ]
        return config.model_copy(update=update)

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        yield from self.length_problems(self.schedule(self.config.search.warmup_steps()))

    def mixer(self, run: Run) -> OuterLoop[TargetGradients]:
        from fastmix_mega.training.outer_loop import OuterLoop

        search, inputs = run.config.search, run.inputs
        data = OpenedData(inputs.sources, inputs.targets, inputs.tokenizer.sha256)
        initial = self.initial(data)
        warmup = search.warmup_steps()
        schedule = self.schedule(warmup)

        def rate(outer_step: int) -> float:
            return window_rate(run.config, warmup + outer_step * search.every)

        mu = self.settings.mu
        if not self.given.targets:
            # The measured gradient is the mean over the sources, the paper's is their sum.
            mu = mu / len(run.config.sources)
        controller = DoGEController(initial, mu, rate) if run.layout.is_main else None
        observer = self.observer(run, schedule)
        policy = MixturePolicy(initial, search.exploration)
        return OuterLoop(run.layout, schedule, observer, controller, policy)

    def answer(self, run: Run, mixer: OuterLoop[TargetGradients], steps: int) -> Answer:
        """Raw gradients say nothing of a step of Adam's: there are no gains."""
        return replace(super().answer(run, mixer, steps), gains=None, more={})


class DoGEController(AverageController):
    """Mirror descent on the alignment of raw gradients.

    Args:
        initial: [S] the first mixture.
        mu: see `DoGESection`.
        rate: outer step -> the learning rates of its window, summed.
    """

    def __init__(self, initial: FloatArray, mu: float, rate: Callable[[int], float]) -> None:
        super().__init__(initial)
        self._mu, self._rate = mu, rate

    def _moved(self, sums: FloatArray, means: FloatArray) -> FloatArray:
        del sums
        return doge_mixture(self.mixture, means, self._rate(self.outer_step), self._mu)

    def row(self) -> dict[str, Any]:
        """The paper has no standard errors."""
        return {"mixture_stderr": [0.0] * len(self.initial)}


def doge_mixture(mixture: FloatArray, alignment: FloatArray, rate: float, mu: float) -> FloatArray:
    """DoGE, equation 5 and Algorithm 1: mixture * exp(rate * W / mu), normalised.

    Args:
        mixture: [S] positive.
        alignment: [S] W: <a source's gradient, the objective's gradient>.
        rate: the learning rate of the step, or the sum over the steps that share W.
        mu: strength of the Bregman regularisation.
    """
    return softmax(np.log(mixture) + rate * alignment / mu)
