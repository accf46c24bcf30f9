"""`method: regmix`: a swarm of proxy runs by sampling, and the regression's best mixture.

Every run is an ordinary `fastmix train` in run_dir/swarm/NN, judged at its end on the targets'
text; finished ones are kept when the search is started again, and an interrupted one goes on from
its checkpoint. The runs follow each other in the same processes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.schema import Config, parse_config
from fastmix_mega.data.inputs import Inputs, open_inputs
from fastmix_mega.errors import UserError
from fastmix_mega.files import read_jsonl, write_json
from fastmix_mega.methods.answer import answer, finish
from fastmix_mega.methods.cost import evaluation_in_proxy_runs
from fastmix_mega.mixture import regression as regmix
from fastmix_mega.mixture.file import MixtureFile, read_mixture, resolve_mixture
from fastmix_mega.model.presets import resolve_shape
from fastmix_mega.parallel import layout as parallel_layout
from fastmix_mega.training.identity import differences, record_run
from fastmix_mega.training.stop import StopRequest
from fastmix_mega.training.trainer import run_within

DOUBTFUL = 0.5
"""A regression with a larger share of the losses' variance unexplained is warned of."""


def search(config: Config) -> None:
    """Train the runs that are missing, fit, and write the answer. Collective.

    Raises:
        Stopped: after a checkpoint of the run at hand, if a signal or a stop file asked for it.
        UserError: if a folder of the swarm holds another run.
    """
    inputs = open_inputs(config)
    prior = _prior(config, inputs)
    mixtures = regmix.draw_mixtures(config.regmix.runs, prior, config.seed)
    runs = [run_config(config, number, row) for number, row in enumerate(mixtures)]
    missing = [number for number, run in enumerate(runs) if not is_done(run)]
    request = StopRequest(config.run_dir)
    with parallel_layout.start(config.parallel) as layout, request.listening():
        if layout.is_main:
            record_run(config, "search", None)
        for number in missing:
            if layout.is_main:
                print(f"swarm: run {number + 1} of {len(runs)}", file=sys.stderr)
            run_within(layout, runs[number], "train", request)
        if layout.is_main:
            finish(config, conclude(config, inputs, prior, mixtures, runs))


def run_config(config: Config, number: int, mixture: FloatArray) -> Config:
    """The configuration of one run of the swarm: the search's, with a mixture of its own.

    Its evaluation sets are the targets, the same sequences in every run; the search's own held-out
    sets are for judging, and stay unread.
    """
    sets = [{"name": target.name, "prefix": target.prefix} for target in config.targets]
    names = config.source_names
    given: dict[str, Any] = config.model_dump(mode="json")
    return parse_config(
        given
        | {
            "run_dir": f"{config.run_dir}/swarm/{number:02d}",
            "method": "fastmix",
            "mixture": dict(zip(names, mixture.tolist(), strict=True)),
            "stages": [],
            "targets": [],
            "search": {},
            "regmix": {},
            "evaluation": given["evaluation"] | {"sets": sets, "every": 0},
            "checkpoint": given["checkpoint"] | {"final": False},
            "log": given["log"] | {"wandb": "disabled"},
        },
        where=f"run {number} of the swarm",
    )


def conclude(
    config: Config, inputs: Inputs, prior: FloatArray, mixtures: FloatArray, runs: list[Config]
) -> MixtureFile:
    """Fit the finished runs, and choose."""
    section = config.regmix
    names = [target.name for target in config.targets]
    rows = [final_losses(Path(run.run_dir), names) for run in runs]
    losses = np.array(rows)  # [N, targets]
    shares = np.array([target.weight for target in config.targets])
    predict = regmix.fit(mixtures, losses, section.families, seed=config.seed)
    weights = regmix.best_mixture(
        predict, prior, shares, config.seed, section.candidates, section.top
    )
    table = [
        {"run": number, "mixture": mixture.tolist(), "losses": dict(zip(names, row, strict=True))}
        for number, (mixture, row) in enumerate(zip(mixtures, rows, strict=True))
    ]
    write_json(Path(config.run_dir) / "swarm.json", table)
    error = predict.errors[predict.family]
    warnings = []
    if error > DOUBTFUL:
        warnings.append(
            f"The regression leaves {error:.0%} of the variance between runs unexplained (by "
            "cross-validation): raise regmix.runs, or evaluation.sequences."
        )
    shape = resolve_shape(config.model, inputs.tokenizer.vocab_size)
    judged = len(names) * config.evaluation.sequences
    cost = section.runs * (1 + evaluation_in_proxy_runs(config, shape, judged))
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
    return answer(config, inputs, weights, cost, warnings, more)


def final_losses(run_dir: Path, names: list[str]) -> list[float]:
    """[targets] losses at the end of a finished run."""
    rows = [row["eval"] for row in read_jsonl(run_dir / "metrics.jsonl") if "eval" in row]
    return [float(rows[-1][name]) for name in names]


def _prior(config: Config, inputs: Inputs) -> FloatArray:
    tokens = [source.num_tokens for source in inputs.sources]
    return resolve_mixture(config.regmix.prior, config.source_names, tokens, "regmix.prior")


def is_done(run: Config) -> bool:
    """Whether a run that belongs to a search is finished.

    Raises:
        UserError: if its folder holds another run.
    """
    path = Path(run.run_dir) / "mixture.json"
    if path.is_file():
        if read_mixture(path).search.get("config_sha256") != run.fingerprint():
            raise UserError(f"{run.run_dir} holds another run; name another run_dir")
        return True
    for difference in differences(run, "train"):
        raise UserError(f"{run.run_dir} holds another run: {difference.text}; name another run_dir")
    return False
