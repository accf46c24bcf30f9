"""An exercise: a whole mixture method in one file, which no module of the package knows.

python -m tests.fastmix_mega.methods.sign_method search CONFIG

It moves the mixture's logarithms by the signs of the scores at the head.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.cli import main as cli
from fastmix_mega.config.base import PositiveFloat, Section
from fastmix_mega.config.schema import Config
from fastmix_mega.methods.base import OpenedData
from fastmix_mega.methods.gradients import GradientMethod
from fastmix_mega.methods.registry import METHODS
from fastmix_mega.mixture.controller import AverageController
from fastmix_mega.mixture.sampling import MixturePolicy
from fastmix_mega.mixture.simplex import softmax
from fastmix_mega.training.run import Run


class SignSection(Section):
    """`method: sign` only: sources with scores above the mean gain weight."""

    step: PositiveFloat = 0.1
    """Of the mixture's logarithms."""


class Sign(GradientMethod):
    """See the module's docstring."""

    name = "sign"
    Settings = SignSection

    @classmethod
    def fix(cls, config: Config) -> Config:
        search = {"objective": "mean", "target_scores": 0.0, "scores": "head", "exploration": 0.0}
        return config.model_copy(update={"search": config.search.model_copy(update=search)})

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        yield from self.length_problems(self.schedule(self.config.search.warmup_steps()))

    def mixer(self, run: Run) -> Any:
        from fastmix_mega.training.outer_loop import OuterLoop

        inputs = run.inputs
        initial = self.initial(OpenedData(inputs.sources, inputs.targets, inputs.tokenizer.sha256))
        schedule = self.schedule(run.config.search.warmup_steps())
        controller = SignController(initial, self.settings.step) if run.layout.is_main else None
        observer = self.observer(run, schedule)
        return OuterLoop(run.layout, schedule, observer, controller, MixturePolicy(initial))


class SignController(AverageController):
    """See the module's docstring."""

    def __init__(self, initial: FloatArray, step: float) -> None:
        super().__init__(initial)
        self._step = step

    def _moved(self, sums: FloatArray, means: FloatArray) -> FloatArray:
        del sums
        return softmax(np.log(self.mixture) + self._step * np.sign(means - means.mean()))


def main(arguments: Sequence[str]) -> int:
    """The command, with this method in the registry."""
    METHODS[Sign.name] = Sign
    return cli.main(list(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
