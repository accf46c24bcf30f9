"""`method: reference`: the recipe of the FastMix authors' public code, to compare with.

Raw inner products of one micro-batch, Adam on the mixture's logits (arXiv 2606.14971).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.schema import Config
from fastmix_mega.methods.base import OpenedData
from fastmix_mega.methods.gradients import GradientMethod
from fastmix_mega.mixture.controller import MixtureEstimate, window_estimate
from fastmix_mega.mixture.sampling import MixturePolicy
from fastmix_mega.mixture.simplex import ScoreEstimate, softmax
from fastmix_mega.resumable import Resumable
from fastmix_mega.training.run import Run

if TYPE_CHECKING:
    from fastmix_mega.training.observers import TargetGradients
    from fastmix_mega.training.outer_loop import OuterLoop


class Reference(GradientMethod):
    """See the module's docstring."""

    name = "reference"

    @classmethod
    def fix(cls, config: Config) -> Config:
        """All tokens are scored, as in the authors' code."""
        update = {
            "score_tokens": config.search.score_tokens or 1.0,
            "scores": config.search.scores or "head",
        }
        return config.model_copy(update={"search": config.search.model_copy(update=update)})

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        yield from self.length_problems(self.schedule(self.config.search.warmup_steps()))

    def window(self) -> int:
        """The authors' code scores the one micro-batch that follows the target's gradient."""
        return 1

    def scored_sequences(self, outer_steps: int) -> int:
        return outer_steps * self.config.train.micro_batch

    def mixer(self, run: Run) -> OuterLoop[TargetGradients]:
        from fastmix_mega.training.outer_loop import OuterLoop

        search, inputs = run.config.search, run.inputs
        data = OpenedData(inputs.sources, inputs.targets, inputs.tokenizer.sha256)
        initial = self.initial(data)
        schedule = self.schedule(search.warmup_steps())
        controller = None
        if run.layout.is_main:
            controller = ReferenceController(initial, search.reference_rate)
        observer = self.observer(run, schedule, one_micro_batch=True)
        policy = MixturePolicy(initial, search.exploration)
        return OuterLoop(run.layout, schedule, observer, controller, policy)


class ReferenceController(Resumable):
    """Adam on z; a source that is absent from the micro-batch scores 0.

    Args:
        initial: [S] the first mixture.
        rate: Adam's learning rate.
        beta1: of Adam.
        beta2: of Adam.
    """

    resumes = ("outer_step", "_logits", "_first", "_second")
    settled = False

    def __init__(
        self, initial: FloatArray, rate: float, beta1: float = 0.9, beta2: float = 0.95
    ) -> None:
        self.initial = initial
        self.outer_step = 0
        self._rate, self._beta1, self._beta2 = rate, beta1, beta2
        self._logits = np.log(initial) - np.log(initial).mean()
        self._first, self._second = np.zeros((2, len(initial)))

    @property
    def mixture(self) -> FloatArray:
        return softmax(self._logits)

    def update(self, sums: FloatArray) -> ScoreEstimate:
        self.outer_step += 1
        estimate = window_estimate(sums)
        mixture = self.mixture
        gradient = -mixture * (estimate.mean - mixture @ estimate.mean)
        self._first = self._beta1 * self._first + (1 - self._beta1) * gradient
        self._second = self._beta2 * self._second + (1 - self._beta2) * gradient**2
        first = self._first / (1 - self._beta1**self.outer_step)
        second = self._second / (1 - self._beta2**self.outer_step)
        self._logits = self._logits - self._rate * first / (np.sqrt(second) + 1e-8)
        return estimate

    def row(self) -> dict[str, Any]:
        """No standard errors are known."""
        return {"mixture_stderr": [0.0] * len(self.initial)}

    def result(self) -> MixtureEstimate:
        """The last mixture."""
        return MixtureEstimate(self.mixture, np.zeros_like(self.initial))
