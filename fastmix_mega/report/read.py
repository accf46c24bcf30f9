"""Reads a run folder for the report. Everything is checked here, so that drawing cannot fail."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fastmix_mega.config.parse import LARGEST, read_yaml
from fastmix_mega.errors import UserError
from fastmix_mega.files import read_jsonl
from fastmix_mega.mixture.file import MixtureFile, read_mixture
from fastmix_mega.mixture.surface_file import (
    SURFACE_FILE,
    AnotherVersion,
    SurfaceFile,
    read_surface_file,
)
from fastmix_mega.reading import read_limited


class _Row(BaseModel):
    # A newer version may add fields.
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, frozen=True)


class OuterStep(_Row):
    """A line of history.jsonl; lists are [S]."""

    outer_step: int
    step: int
    tokens: int
    mixture: list[float]
    mixture_stderr: list[float] = []
    """Empty where it is not known, as in older runs."""
    scores: list[float]
    score_stderr: list[float]
    counts: list[int]
    target_loss: dict[str, float]
    """Empty for methods that look at no target."""
    effective_sources: float
    target_weights: list[float] | None = None
    """[K] in the order of `target_loss`."""
    target_scores: list[list[float]] | None = None
    """[K][S]."""
    target_score_stderr: list[list[float]] | None = None
    target_reference: list[float] | None = None
    """[K] of a minimax search."""
    seconds: float = 0.0


class _RankTimes(_Row):
    """Seconds of a training step by rank; None where it is not known."""

    step_seconds: list[float]
    data_seconds: list[float]
    forward_seconds: list[float | None]
    wait_seconds: list[float | None]


class LoggedStep(_Row):
    """A training line of metrics.jsonl; lists are [S]."""

    step: int
    tokens: int
    loss: float
    source_loss: list[float | None]
    source_count: list[int]
    """Sequences drawn since the start of the run."""
    tokens_per_second: float | None = None
    ranks: _RankTimes | None = None
    """None in older runs."""
    restarts: int = 0
    """By the launcher, since the start of the run."""
    layout_changes: int = 0
    """Since the start of the run."""


class Evaluation(_Row):
    """An evaluation line of metrics.jsonl."""

    step: int
    eval: dict[str, float]


class _Target(_Row):
    name: str
    weight: Annotated[float, Field(gt=0)] = 1.0
    share: float | None = None
    scores: dict[str, float] = {}
    score_stderr: dict[str, float] = {}


class _Search(_Row):
    """What the page says about a search; None is no value here, a field may only be absent."""

    steps: int = 0
    outer_steps: int = 0
    train_tokens: int = 0
    cost_in_proxy_runs: float = 0.0
    layout: dict[str, int] = {}
    reuse: dict[str, Any] = {}
    unconstrained: dict[str, float] = {}
    seeds: list[int | str | None] = []
    per_seed: list[dict[str, Any]] = []
    agreement: float = 0.0
    warnings: list[str] = []
    answer_from: str = "trajectory"
    evidence: dict[str, dict[str, float]] = {}
    disagreements: list[str] = []
    predictions: dict[str, dict[str, dict[str, float]]] = {}
    probability_better: float | None = None
    predicted_gain: dict[str, dict[str, float]] = {}
    trained_on: dict[str, float] = {}


class _Result(_Row):
    targets: list[_Target] = []
    search: _Search = _Search()


class Retrained(_Row):
    """retrain/retrain.json: fresh models on the run's mixture, `found`, and on others."""

    baseline: str
    mixtures: dict[str, str | dict[str, float]]
    losses: dict[str, list[dict[str, float]]]
    """Of every mixture, one entry a seed: nats per token by evaluation set."""
    overrides: list[str] = []
    train_tokens: int = 0


class _TrainSettings(_Row):
    steps: int | None = None


class _SearchSettings(_Row):
    warmup: int | None = None
    every: int | None = None


class _Settings(_Row):
    model: dict[str, Any] = {}
    targets: list[_Target] = []
    train: _TrainSettings = _TrainSettings()
    search: _SearchSettings = _SearchSettings()


@dataclass(frozen=True)
class Run:
    """A run folder's content. `mixture` is None while the run is in progress."""

    directory: Path
    config: dict[str, Any]
    config_text: str
    names: list[str]
    """[S] the sources, in the order of every list."""
    mixture: MixtureFile | None
    history: list[OuterStep]
    steps: list[LoggedStep]
    evaluations: list[Evaluation]
    surface: SurfaceFile | None = None
    """None where the answer comes from no loss surface, or from an older search's."""
    retrained: Retrained | None = None
    seeds: list[Run] = field(default_factory=list)
    """The seeds' runs, if this is a folder that pools them; the rest holds their means."""

    @property
    def search(self) -> _Search:
        """What the mixture file says of the search; empty while the run is in progress."""
        return _Search() if self.mixture is None else _Search.model_validate(self.mixture.search)

    def setting(self, *keys: str) -> Any:
        """A value of the configuration, None where there is none."""
        node: Any = self.config
        for key in keys:
            node = node.get(key) if isinstance(node, dict) else None
        return node


def read_run(directory: Path) -> Run:
    """Read and check a run folder.

    Raises:
        UserError: if the folder is no run folder or a file in it is broken; names the file.
    """
    config_path = directory / "config.yaml"
    if not config_path.is_file():
        raise UserError(
            f"{directory} is not a run folder: it has no config.yaml. Give the folder that a "
            "search or a training run wrote (its run_dir)"
        )
    text = read_limited(config_path, LARGEST).decode("utf-8", "replace")
    config = read_yaml(text, str(config_path))
    path = directory / "mixture.json"
    mixture = read_mixture(path) if path.is_file() else None
    names = _source_names(config, mixture, config_path)
    _check(_Settings, config, config_path)
    if mixture is not None:
        check_result(mixture, path)
    metrics = _read_rows(directory / "metrics.jsonl")
    run = Run(
        directory=directory,
        config=config,
        config_text=text,
        names=names,
        mixture=mixture,
        history=_parse(OuterStep, _read_rows(directory / "history.jsonl"), "history.jsonl"),
        steps=_parse(LoggedStep, [row for row in metrics if "eval" not in row], "metrics.jsonl"),
        evaluations=_parse(Evaluation, [row for row in metrics if "eval" in row], "metrics.jsonl"),
        surface=None if mixture is None else _read_surface(directory / SURFACE_FILE, names),
        retrained=_read_retrained(directory / "retrain" / "retrain.json"),
    )
    _check_lengths(run)
    return run


def _read_surface(path: Path, names: list[str]) -> SurfaceFile | None:
    if not path.is_file():
        return None
    try:
        found = read_surface_file(path)
    except AnotherVersion:
        return None  # The page of an earlier version's run does without.
    if found.sources != names:
        raise UserError(f"{path} is of other sources than the run")
    return found


def _read_retrained(path: Path) -> Retrained | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        raise UserError(f"{path} is not JSON") from None
    _check(Retrained, content, path)
    return Retrained.model_validate(content)


def check_result(mixture: MixtureFile, path: Path) -> None:
    """Raises: UserError if a field that the page shows has another type."""
    _check(_Result, mixture.model_dump(), path)


def _source_names(config: Any, mixture: MixtureFile | None, path: Path) -> list[str]:
    if mixture is not None:
        return [source.name for source in mixture.sources]
    try:
        names = [str(source["name"]) for source in config["sources"]]
    except (KeyError, TypeError):
        names = []
    if not names:
        raise UserError(f"{path} names no sources; it is not the configuration of a run")
    return names


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        rows = read_jsonl(path)
    except ValueError as error:
        raise UserError(f"{path} holds a line that is not JSON: {error}") from None
    broken = [row for row in rows if not isinstance(row, dict)]
    if broken:
        raise UserError(f"{path} holds a line that is no JSON object: {json.dumps(broken[0])[:80]}")
    return rows


RowType = TypeVar("RowType", bound=_Row)


def _parse(kind: type[RowType], rows: Sequence[dict[str, Any]], file: str) -> list[RowType]:
    parsed = []
    for number, row in enumerate(rows, start=1):
        try:
            parsed.append(kind.model_validate(row))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(f"{file}, row {number} of its kind: {where}: {first['msg']}") from None
    return parsed


def _check(kind: type[_Row], content: Any, path: Path) -> None:
    try:
        kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {where}: {first['msg']}") from None


def _check_lengths(run: Run) -> None:
    expected = len(run.names)
    for row in run.history:
        errors = row.mixture_stderr or row.mixture
        for values in (row.mixture, errors, row.scores, row.score_stderr, row.counts):
            if len(values) != expected:
                raise UserError(
                    f"history.jsonl, outer step {row.outer_step}: {len(values)} values for "
                    f"{expected} sources; does the folder mix two runs?"
                )
        targets = len(row.target_loss)
        for vector in (row.target_weights, row.target_reference):
            if vector is not None and len(vector) != targets:
                raise UserError(
                    f"history.jsonl, outer step {row.outer_step}: {len(vector)} values for "
                    f"{targets} targets"
                )
        for matrix in (row.target_scores, row.target_score_stderr):
            if matrix is not None and [len(each) for each in matrix] != [expected] * targets:
                raise UserError(
                    f"history.jsonl, outer step {row.outer_step}: the targets' scores are not "
                    f"{targets} x {expected} numbers"
                )
    for line in run.steps:
        if not len(line.source_loss) == len(line.source_count) == expected:
            raise UserError(
                f"metrics.jsonl, step {line.step}: {len(line.source_loss)} losses for "
                f"{expected} sources; does the folder mix two runs?"
            )
        if line.ranks is not None and len({len(each) for _, each in line.ranks}) > 1:
            raise UserError(f"metrics.jsonl, step {line.step}: times of different numbers of ranks")
