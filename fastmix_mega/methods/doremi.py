"""`method: doremi`: a reference run at the initial mixture, then group DRO on excess losses.

DoReMi's first two steps (Xie et al., 2023, arXiv 2305.10429); its third is `fastmix train`. The
reference is an ordinary training in run_dir/reference, kept if the search starts again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.base import PositiveFloat, Section, Share
from fastmix_mega.config.schema import Config
from fastmix_mega.data.run_inputs import Inputs
from fastmix_mega.methods.fixed import FixedMixture, finished_before, run_of_a_search
from fastmix_mega.methods.losses import LossMethod
from fastmix_mega.mixture.controller import AverageController
from fastmix_mega.mixture.simplex import softmax
from fastmix_mega.training.engine.observation import Observation, SequenceLosses
from fastmix_mega.training.run import Run

if TYPE_CHECKING:
    from fastmix_mega.parallel.layout import Layout


class DoReMiSection(Section):
    """`method: doremi` only: a reference run, then group DRO on what the losses exceed its by."""

    step: PositiveFloat = 1.0
    """Of the mixture's logarithms, per nat of excess loss (the paper's eta)."""
    smoothing: Share = 1e-3
    """Share of the uniform mixture in every update (the paper's c)."""


class DoReMi(LossMethod):
    """See the module's docstring. Sampling is uniform; the mixture weighs the losses."""

    name = "doremi"
    Settings = DoReMiSection
    exploration = 1.0

    def problems(self) -> Iterator[str]:
        if self.config.parallel.pipeline > 1:
            yield "method: doremi runs two models at once; it needs parallel.pipeline: 1"
        yield from super().problems()

    def search(self) -> None:
        """Train the reference if it is missing, then search. Collective.

        Raises:
            Stopped: after a checkpoint, if a signal or a stop file asked for it.
            UserError: if the reference's folder holds another run.
        """
        from fastmix_mega.parallel import layout as parallel_layout
        from fastmix_mega.training.stop import StopRequest
        from fastmix_mega.training.trainer import run_within

        reference = reference_config(self.given)
        done = finished_before(reference)
        request = StopRequest(self.given.run_dir)
        with parallel_layout.start(self.given.parallel) as layout, request.listening():
            if not done:
                if layout.is_main:
                    print("doremi: the reference run", file=sys.stderr)
                run_within(layout, FixedMixture(reference), request)
            run_within(layout, self, request)

    def observes(self, layout: Layout, inputs: Inputs) -> Observation | None:
        from fastmix_mega.weights.init_from import open_start_together

        del inputs
        return SequenceLosses(
            reference=open_start_together(reference_folder(self.given.run_dir), layout)
        )

    def controller(self, initial: FloatArray) -> DoReMiController:
        return DoReMiController(initial, self.settings.step, self.settings.smoothing)

    def cost(self, run: Run, outer_steps: int, steps: int) -> float:
        """The reference's run, and its forward passes on what the proxy trains on."""
        del steps
        scored = outer_steps * run.config.train.global_batch
        return 2.0 + self.operations(run).forward_passes(scored)


def reference_folder(run_dir: str) -> str:
    """Where the reference model is trained."""
    return f"{run_dir}/reference"


def reference_config(config: Config) -> Config:
    """The configuration of the reference's run."""
    initial = config.search.initial
    changes: dict[str, Any] = {
        "run_dir": reference_folder(config.run_dir),
        "mixture": "uniform" if initial == "auto" else initial,
        "evaluation": {},
        "doremi": {},
        "checkpoint": config.checkpoint.model_dump(mode="json") | {"final": True, "keep": 1},
    }
    return run_of_a_search(config, changes)


class DoReMiController(AverageController):
    """Group DRO on excess losses; a source that a batch holds none of keeps its last one.

    Args:
        initial: [S] the first mixture.
        step: the paper's eta.
        smoothing: the paper's c.
    """

    def __init__(self, initial: FloatArray, step: float = 1.0, smoothing: float = 1e-3) -> None:
        super().__init__(initial)
        self._step, self._smoothing = step, smoothing

    def _moved(self, sums: FloatArray, means: FloatArray) -> FloatArray:
        self._memory = np.where(sums[2] > 0, means, self._memory)
        return doremi_mixture(self.mixture, self._memory, self._step, self._smoothing)


def doremi_mixture(
    mixture: FloatArray, excess: FloatArray, step: float, smoothing: float
) -> FloatArray:
    """DoReMi, Algorithm 1: exponentiated gradient ascent on clipped excess losses, then smoothing.

    Args:
        mixture: [S] positive.
        excess: [S] mean of max(loss - reference's loss, 0) over a source's tokens.
        step: eta, 1 in the paper.
        smoothing: c, the share of the uniform mixture; 1e-3 in the paper.
    """
    raised = softmax(np.log(mixture) + step * excess)
    return (1 - smoothing) * raised + smoothing / len(mixture)
