"""Finished runs of the user's as evidence of a search's loss surface: read, and compared with it.

`search.evidence` names run folders of `fastmix train`, folders that hold such (a swarm's, a
retraining's), and files of the schema fastmix-evidence/1. Runs of the search's own model, budget
and text are its own; all others tell differences between mixtures alone, in groups of what is
alike. Short runs that start from a trained model are branches: their mixture had little time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastmix_mega.config.schema import Config, load_common_config
from fastmix_mega.errors import UserError
from fastmix_mega.export.swarm_evidence import read_evidence
from fastmix_mega.files import read_jsonl
from fastmix_mega.methods.fixed import FixedMixture
from fastmix_mega.mixture.file import read_mixture
from fastmix_mega.mixture.surface_values import OWN, Values

FEWEST = 3
"""Runs of another kind that tell anything: their offset and scale are free."""
RUNS_BELOW = ("*/", "swarm/*/", "retrain/*/", "branches/*/")
"""Where a folder may hold runs."""
SHORT = 0.5
"""Share of the search's tokens that a branch of a trained model reads at most."""
_TRAIN = {"steps", "global_batch", "seq_length", "schedule", "optimizer"}


@dataclass
class RunEvidence:
    """What was read."""

    values: Values
    facts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Finished:
    """One run."""

    where: str
    mixture: Mapping[str, float]
    losses: Mapping[str, float]
    kind: str
    """The same for runs whose losses are comparable."""
    short: bool = False
    """Whether it is a branch of a trained model."""


def read_runs(given: Sequence[str], config: Config, tokenizer_sha256: str) -> RunEvidence:
    """All runs that are named.

    Args:
        given: paths.
        config: of the search.
        tokenizer_sha256: of the search's tokenizer.

    Raises:
        UserError: with everything that cannot be used, and why.
    """
    mistakes: list[str] = []
    runs: dict[str, _Finished] = {}
    for path in given:
        try:
            every = list(_read(Path(path), config, tokenizer_sha256))
        except UserError as error:
            mistakes.append(str(error))
            continue
        for run in every:
            mistakes += _objections(run, config)
            runs[run.where] = run
    if mistakes:
        raise UserError("\n".join(f"search.evidence: {mistake}" for mistake in mistakes))
    return _evidence(list(runs.values()), config)


def _evidence(runs: Sequence[_Finished], config: Config) -> RunEvidence:
    names = [target.name for target in config.targets]
    kinds = list(dict.fromkeys(run.kind for run in runs if run.kind != _kind(config)))
    groups = [OWN if run.kind == _kind(config) else 1 + kinds.index(run.kind) for run in runs]
    values = Values(
        np.array([[run.mixture.get(name, 0.0) for name in config.source_names] for run in runs]),
        np.array([[run.losses.get(name, math.nan) for name in names] for run in runs]),
        np.array(groups, np.int64),
        np.array([run.short for run in runs]),
    )
    own = groups.count(OWN)
    found = RunEvidence(values)
    found.facts.append(
        f"evidence: {len(runs)} finished runs; {own} of this search's model, budget and held-out "
        f"text, {len(runs) - own} of {len(kinds)} other kind(s), which tell differences alone"
    )
    if values.short.any():
        found.facts.append(
            f"{values.short.sum()} of them are short branches of a trained model, which count less"
        )
    for number, kind in enumerate(kinds, 1):
        if groups.count(number) < FEWEST:
            origin = next(run.where for run in runs if run.kind == kind)
            found.warnings.append(
                f"search.evidence: {origin} is of another model, budget or text than the search, "
                f"and there are fewer than {FEWEST} runs of its kind: they tell next to nothing"
            )
    return found


def _objections(run: _Finished, config: Config) -> Iterator[str]:
    """Names that do not match."""
    unknown = [name for name in run.mixture if name not in config.source_names]
    trained = sorted(name for name in unknown if run.mixture[name] > 0)
    if trained:
        share = sum(run.mixture[name] for name in trained)
        yield (
            f"{run.where} trained {share:.1%} of its tokens on {', '.join(trained)}, which is no "
            "source here; name the sources alike, or leave the run out"
        )
    targets = [target.name for target in config.targets]
    if not set(targets) & run.losses.keys():
        yield (
            f"{run.where} knows losses of {', '.join(sorted(run.losses)) or 'nothing'}, and none "
            f"of them is named like a target ({', '.join(targets)}); name them alike"
        )


def _read(path: Path, config: Config, tokenizer_sha256: str) -> Iterator[_Finished]:
    if path.is_file():
        yield from _of_file(path)
        return
    folders = [path] if _is_training(path) else _trainings_below(path)
    if not folders:
        raise UserError(
            f"{path} holds no finished run of fastmix train, and no swarm or retraining of such; "
            "a search's own losses are of weighted batches, and do not compare mixtures"
        )
    for folder in folders:
        yield _of_folder(folder, config, tokenizer_sha256)


def _is_training(folder: Path) -> bool:
    path = folder / "mixture.json"
    return path.is_file() and read_mixture(path).search.get("method") == FixedMixture.name


def _trainings_below(folder: Path) -> list[Path]:
    every = (folder.glob(f"{part}mixture.json") for part in RUNS_BELOW)
    return sorted({path.parent for paths in every for path in paths if _is_training(path.parent)})


def _of_folder(folder: Path, config: Config, tokenizer_sha256: str) -> _Finished:
    mixture = read_mixture(folder / "mixture.json")
    try:
        given = load_common_config(folder / "config.yaml")
        rows = [row["eval"] for row in read_jsonl(folder / "metrics.jsonl") if "eval" in row]
    except (UserError, OSError) as error:
        raise UserError(f"{folder} cannot be read as a run folder: {error}") from None
    if mixture.tokenizer.get("sha256") != tokenizer_sha256:
        raise UserError(f"{folder} is of another tokenizer: its losses per token mean other things")
    if given.stages:
        raise UserError(f"{folder} changed its mixture on the way (stages); it has no single one")
    if not rows:
        raise UserError(f"{folder} holds no evaluation; give the run evaluation.sets")
    losses = {name: loss for name, loss in rows[-1].items() if math.isfinite(loss)}
    wanted = {target.name for target in config.targets}
    found = {name: loss for name, loss in losses.items() if name in wanted} or losses
    kind = _kind(given, wanted)
    short = given.init_from is not None and given.train.tokens <= SHORT * config.train.tokens
    return _Finished(str(folder.resolve()), mixture.weights, found, kind, short)


def _of_file(path: Path) -> Iterator[_Finished]:
    content: Mapping[str, Any] = read_evidence(path)
    try:
        for run in content["runs"]:
            mixture = {name: float(share) for name, share in run["mixture"].items()}
            losses = {name: float(loss) for name, loss in run["metrics"].items()}
            if losses:
                yield _Finished(f"{path}: run {run['run']}", mixture, losses, f"file {path}")
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{path} is damaged; write it anew with fastmix import") from None


def _kind(config: Config, targets: set[str] | None = None) -> str:
    """What a loss depends on beside mixture, seed and data.

    Args:
        config: of a run.
        targets: names of the search's targets; the run's own by default.
    """
    if targets is None:
        targets = {target.name for target in config.targets}
    sets = config.evaluation.sets or config.targets
    content = {
        "model": config.model.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json", include=_TRAIN),
        "init_from": config.init_from,
        "judged_on": {each.name: each.prefixes for each in sets if each.name in targets},
        "sequences": config.evaluation.sequences,
    }
    return json.dumps(content, sort_keys=True, default=str)
