"""`method: regmix`: a swarm of proxy runs by sampling, and the regression's best mixture.

RegMix (Liu et al., ICLR 2025, arXiv 2407.01492). Every run is an ordinary training in
run_dir/swarm/NN, judged at its end on the targets' text; finished ones are kept when the search is
started again, and an interrupted one goes on from its checkpoint. The runs follow each other in the
same processes. The mathematics is in `mixture/regression.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.base import PathText, PositiveInt, Section
from fastmix_mega.config.schema import Config
from fastmix_mega.data.run_inputs import Inputs, open_inputs
from fastmix_mega.files import read_jsonl, write_json
from fastmix_mega.methods.base import Method, OpenedData, Preview, target_weights
from fastmix_mega.methods.fixed import FixedMixture, finished_before, run_of_a_search
from fastmix_mega.methods.result import Answer, plain_mixture_file
from fastmix_mega.methods.search_cost import ProxyOperations
from fastmix_mega.methods.untrained import finish
from fastmix_mega.mixture import regression
from fastmix_mega.mixture.controller import MixtureEstimate
from fastmix_mega.mixture.file import MixtureFile, resolve_mixture
from fastmix_mega.model.presets import resolve_shape
from fastmix_mega.training.identity import record_run

DOUBTFUL = 0.5
"""A regression with a larger share of the losses' variance unexplained is warned of."""


class RegMixSection(Section):
    """`method: regmix` only: a swarm of proxies, and a regression from mixtures to losses."""

    runs: Annotated[int, Field(ge=4, le=100_000)] = 48
    """Proxy runs; each is a `fastmix train` of `train.steps` in run_dir/swarm/NN. More can be added
    to a finished swarm: the first ones stay the same."""
    prior: PathText | dict[str, float] = "proportional"
    """What mixtures are drawn around: `proportional` to the tokens, as in the paper, `uniform`, a
    mixture.json, or weights by name."""
    families: Annotated[list[Literal["linear", "log", "lightgbm"]], Field(min_length=1)] = Field(
        default=["linear", "log", "lightgbm"]
    )
    """Regressions to choose from, by cross-validation on the swarm: ridge on shares, ridge on their
    logarithms, boosted trees."""
    candidates: PositiveInt = 100_000
    """Simulated mixtures."""
    top: PositiveInt = 128
    """How many of the best simulated mixtures are averaged."""


class RegMix(Method):
    """See the module's docstring."""

    name = "regmix"
    Settings = RegMixSection
    own_run = False
    free_sections = ("regmix",)
    """A swarm may grow, and be fitted anew; its runs are compared one by one."""

    def preview(self, data: OpenedData) -> Preview:
        found = super().preview(data)
        if (self._prior(data.tokens) <= 0).any():
            found.mistakes.append(
                "regmix.prior: a source with a weight of 0 would never be drawn; drop the source"
            )
        found.facts.append(f"swarm: {self.settings.runs} proxy runs")
        return found

    def search(self) -> None:
        """Train the runs that are missing, fit, and write the answer. Collective.

        Raises:
            Stopped: after a checkpoint of the run at hand, if a signal or a stop file asked for it.
            UserError: if a folder of the swarm holds another run.
        """
        from fastmix_mega.parallel import layout as parallel_layout
        from fastmix_mega.training.stop import StopRequest
        from fastmix_mega.training.trainer import run_within

        config = self.given
        inputs = open_inputs(config)
        prior = self._prior([source.num_tokens for source in inputs.sources])
        mixtures = regression.draw_mixtures(self.settings.runs, prior, config.seed)
        runs = [run_config(config, number, row) for number, row in enumerate(mixtures)]
        missing = [number for number, run in enumerate(runs) if not finished_before(run)]
        request = StopRequest(config.run_dir)
        with parallel_layout.start(config.parallel) as layout, request.listening():
            if layout.is_main:
                record_run(config, "search", None)
            for number in missing:
                if layout.is_main:
                    print(f"swarm: run {number + 1} of {len(runs)}", file=sys.stderr)
                run_within(layout, FixedMixture(runs[number]), request)
            if layout.is_main:
                finish(config, self.fit(inputs, mixtures, runs))

    def fit(self, inputs: Inputs, mixtures: FloatArray, runs: list[Config]) -> MixtureFile:
        """Fit the finished runs, and choose.

        Args:
            inputs: of the search.
            mixtures: [N, S] of the runs.
            runs: their configurations.
        """
        config, section = self.given, self.settings
        names = [target.name for target in config.targets]
        rows = [final_losses(Path(run.run_dir), names) for run in runs]
        losses = np.array(rows)  # [N, targets]
        shares = target_weights(config)
        predict = regression.fit(mixtures, losses, section.families, seed=config.seed)
        prior = self._prior([source.num_tokens for source in inputs.sources])
        weights = regression.best_mixture(
            predict, prior, shares, config.seed, section.candidates, section.top
        )
        _write_table(config, mixtures, rows)

        error = predict.errors[predict.family]
        warnings = []
        if error > DOUBTFUL:
            warnings.append(
                f"The regression leaves {error:.0%} of the variance between runs unexplained (by "
                "cross-validation): raise regmix.runs, or evaluation.sequences."
            )
        train = config.train
        more = {
            "steps": train.steps,
            "train_tokens": train.tokens,
            "runs": section.runs,
            "regression": predict.family,
            "unexplained_variance": predict.errors,
            "predicted_loss": dict(zip(names, predict(weights[None])[0].tolist(), strict=True)),
            "best_run": int((losses @ (shares / shares.sum())).argmin()),
        }
        shape = resolve_shape(config.model, inputs.tokenizer.vocab_size)
        judged = len(names) * config.evaluation.sequences
        cost = section.runs * (1 + ProxyOperations.of(train, shape).forward_passes(judged))
        estimate = MixtureEstimate(weights, np.zeros_like(weights))
        return plain_mixture_file(
            config, inputs, Answer(self.name, estimate, cost, warnings, more=more)
        )

    def _prior(self, tokens: list[int]) -> FloatArray:
        return resolve_mixture(self.settings.prior, self.given.source_names, tokens, "regmix.prior")


def run_config(config: Config, number: int, mixture: FloatArray) -> Config:
    """The configuration of one run of the swarm: the search's, with a mixture of its own.

    Its evaluation sets are the targets, the same sequences in every run; the search's own held-out
    sets are for judging, and stay unread.
    """
    given = config.model_dump(mode="json")
    sets = [{"name": target.name, "prefix": target.prefix} for target in config.targets]
    changes: dict[str, Any] = {
        "run_dir": f"{config.run_dir}/swarm/{number:02d}",
        "mixture": dict(zip(config.source_names, mixture.tolist(), strict=True)),
        "regmix": {},
        "evaluation": given["evaluation"] | {"sets": sets, "every": 0},
        "checkpoint": given["checkpoint"] | {"final": False},
    }
    return run_of_a_search(config, changes)


def final_losses(run_dir: Path, names: list[str]) -> list[float]:
    """[targets] losses at the end of a finished run."""
    rows = [row["eval"] for row in read_jsonl(run_dir / "metrics.jsonl") if "eval" in row]
    return [float(rows[-1][name]) for name in names]


def _write_table(config: Config, mixtures: FloatArray, rows: list[list[float]]) -> None:
    """swarm.json: every run's mixture and losses."""
    names = [target.name for target in config.targets]
    table = [
        {"run": number, "mixture": mixture.tolist(), "losses": dict(zip(names, row, strict=True))}
        for number, (mixture, row) in enumerate(zip(mixtures, rows, strict=True))
    ]
    write_json(Path(config.run_dir) / "swarm.json", table)
