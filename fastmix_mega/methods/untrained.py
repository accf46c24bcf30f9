"""`method: uniform | proportional`: mixtures without any training; and what all of them share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.schema import Config
from fastmix_mega.data.run_inputs import Inputs, open_inputs
from fastmix_mega.methods.base import Method
from fastmix_mega.methods.result import Answer, plain_mixture_file
from fastmix_mega.mixture.controller import MixtureEstimate
from fastmix_mega.mixture.file import MixtureFile, resolve_mixture
from fastmix_mega.training.identity import record_run


class UntrainedMethod(Method):
    """A mixture that follows from the data alone; rank 0 finds it."""

    trains = False
    own_run = False

    def search(self) -> None:
        if os.environ.get("RANK", "0") == "0":
            mixture = self.mixture()
            record_run(self.given, "search", None)
            finish(self.given, mixture)

    def mixture(self) -> MixtureFile:
        """The answer.

        Raises:
            UserError: if a file is missing, broken, or too short.
        """
        inputs = open_inputs(self.given)
        weights, warnings = self.weights(inputs)
        estimate = MixtureEstimate(np.asarray(weights, np.float64), np.zeros_like(weights))
        answer = Answer(self.name, estimate, cost=0.0, warnings=warnings)
        return plain_mixture_file(self.given, inputs, answer)

    def weights(self, inputs: Inputs) -> tuple[FloatArray, list[str]]:
        """[S] the mixture, and warnings about it."""
        tokens = [source.num_tokens for source in inputs.sources]
        return resolve_mixture(self.name, self.given.source_names, tokens, "method"), []


class Uniform(UntrainedMethod):
    """The same share for every source."""

    name = "uniform"
    needs_targets = False


class Proportional(UntrainedMethod):
    """Shares in proportion to the sources' tokens."""

    name = "proportional"
    needs_targets = False


def finish(config: Config, mixture: MixtureFile) -> None:
    """Write mixture.json and the report, and say where they are. On rank 0."""
    from fastmix_mega.export.export import describe
    from fastmix_mega.report.build import build_report

    directory = Path(config.run_dir)
    path = directory / "mixture.json"
    mixture.write(path)
    lines = [*describe(mixture, None), f"mixture: {path}", f"report:  {build_report(directory)}"]
    print("\n".join(lines), file=sys.stderr)
