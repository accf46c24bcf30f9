"""A folder of several seeds as one run: means over the seeds, with what their spread says.

`fastmix search --seeds` and `fastmix pool` leave a mixture.json that names the seeds' runs.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fastmix_mega.errors import UserError
from fastmix_mega.mixture.file import read_mixture
from fastmix_mega.mixture.simplex import effective_sources, geometric_mean
from fastmix_mega.report.read import Evaluation, LoggedStep, OuterStep, Run, check_result, read_run


def is_pooled(directory: Path) -> bool:
    """Whether the folder holds a pooled mixture, and is no run folder itself."""
    path = directory / "mixture.json"
    if (directory / "config.yaml").is_file() or not path.is_file():
        return False
    return bool(read_mixture(path).search.get("per_seed"))


def read_pooled(directory: Path) -> Run:
    """Read the pooled mixture and the seeds' runs.

    Raises:
        UserError: if a seed's run is missing, broken, or of other sources; names the folder.
    """
    path = directory / "mixture.json"
    mixture = read_mixture(path)
    check_result(mixture, path)
    runs = []
    for entry in mixture.search["per_seed"]:
        folder = directory / str(entry.get("run") or f"seed_{entry.get('seed')}")
        if not folder.is_dir():
            raise UserError(
                f"{path} was pooled from {folder}, which is not there; "
                "report on the seeds' own folders, or move them back"
            )
        runs.append(read_run(folder))
    names = [source.name for source in mixture.sources]
    for run in runs:
        if run.names != names:
            raise UserError(f"{run.directory} has other sources than {directory}/mixture.json")
    return replace(
        runs[0],
        directory=directory,
        mixture=mixture,
        surface=None,
        retrained=None,
        history=_outer_steps([run.history for run in runs]),
        steps=_logged_steps([run.steps for run in runs]),
        evaluations=_evaluations([run.evaluations for run in runs]),
        seeds=runs,
    )


def _outer_steps(histories: Sequence[Sequence[OuterStep]]) -> list[OuterStep]:
    """Outer steps that all seeds have; mixtures are averaged as the pool does."""
    merged = []
    for rows in zip(*histories, strict=False):
        mixtures = np.array([row.mixture for row in rows])
        mean = geometric_mean(np.log(np.maximum(mixtures, 1e-12)))
        scores = np.array([row.scores for row in rows])
        errors = np.array([row.score_stderr for row in rows])
        targets = rows[0].target_loss
        merged.append(
            rows[0].model_copy(
                update={
                    "mixture": mean.tolist(),
                    "mixture_stderr": _mean_error(mixtures).tolist(),
                    "scores": scores.mean(axis=0).tolist(),
                    "score_stderr": (np.sqrt((errors**2).sum(axis=0)) / len(rows)).tolist(),
                    "counts": np.sum([row.counts for row in rows], axis=0).tolist(),
                    "target_loss": {
                        name: statistics.mean(row.target_loss.get(name, loss) for row in rows)
                        for name, loss in targets.items()
                    },
                    "effective_sources": effective_sources(mean),
                    "target_scores": None,
                    "target_score_stderr": None,
                    "target_weights": None,
                    "target_reference": None,
                    "seconds": sum(row.seconds for row in rows),
                }
            )
        )
    return merged


def _mean_error(values: np.ndarray) -> np.ndarray:
    """[S] standard errors of the mean of [K, S]."""
    error: np.ndarray = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return error


def _logged_steps(lines: Sequence[Sequence[LoggedStep]]) -> list[LoggedStep]:
    merged = []
    for rows in zip(*lines, strict=False):
        speeds = [row.tokens_per_second for row in rows if row.tokens_per_second]
        merged.append(
            rows[0].model_copy(
                update={
                    "loss": statistics.mean(row.loss for row in rows),
                    "source_loss": [
                        _known_mean(values)
                        for values in zip(*(row.source_loss for row in rows), strict=True)
                    ],
                    "source_count": np.sum([row.source_count for row in rows], axis=0).tolist(),
                    "tokens_per_second": statistics.mean(speeds) if speeds else None,
                    "ranks": None,
                    "restarts": sum(row.restarts for row in rows),
                    "layout_changes": sum(row.layout_changes for row in rows),
                }
            )
        )
    return merged


def _evaluations(lines: Sequence[Sequence[Evaluation]]) -> list[Evaluation]:
    return [
        Evaluation(
            step=rows[0].step,
            eval={
                name: statistics.mean(row.eval.get(name, loss) for row in rows)
                for name, loss in rows[0].eval.items()
            },
        )
        for rows in zip(*lines, strict=False)
    ]


def _known_mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None
