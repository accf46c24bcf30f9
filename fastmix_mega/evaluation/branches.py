"""Short branches of a search's model: more evidence for its loss surface, for half a proxy run.

From the end of the search one branch a source is trained for a twentieth of its steps, on a mixture
of which half is that source and half the search's own, and one branch on that mixture unchanged;
all with the same seed, and judged on the targets. Their differences say what a source is worth to
the trained model, in the model's own steps, where the search's scores are slopes at one point.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastmix_mega.config.schema import Config
from fastmix_mega.configuration import load_config
from fastmix_mega.errors import MISSHAPEN, UserError
from fastmix_mega.evaluation.retrain import Candidate, Study, targets_as_sets
from fastmix_mega.methods.predictions import why_no_surface
from fastmix_mega.mixture.file import read_mixture
from fastmix_mega.mixture.surface_file import SURFACE_FILE, read_surface_file

SHARE = 0.5
"""Of a branch's tokens that its source has, beside the search's own mixture."""
LENGTH = 0.05
"""Of a branch, as a share of the search's steps."""
PEAK = 0.25
"""Of a branch's learning rate, as a share of the search's peak."""
WARMUP = 0.1
"""As a share of the branch's steps."""
UNCHANGED = "unchanged"


def branch_study(
    run: Path, overrides: Sequence[str], sources: Sequence[str], folder: Path
) -> Study:
    """What is trained.

    Args:
        run: the run folder of a search.
        overrides: of the branches' configuration.
        sources: that have a branch; empty for all.
        folder: for the branches.

    Raises:
        UserError: if the search left no loss surface or a damaged one, or has no such source.
    """
    if reason := why_no_surface(run):
        raise UserError(reason)
    read_surface_file(run / SURFACE_FILE)
    config = load_config(run / "config.yaml")
    if unknown := [name for name in sources if name not in config.source_names]:
        raise UserError(
            f"--source {unknown[0]} is no source of {run}; it has {', '.join(config.source_names)}"
        )
    trained = _trained_on(run, config)
    candidates = [
        Candidate(name, mixture)
        for name, mixture in branch_mixtures(trained, sources or config.source_names).items()
    ]
    words = [f"{key}={_text(value)}" for key, value in _settings(run, config).items()]
    words.append(targets_as_sets(config))
    return Study(run / "config.yaml", [*words, *overrides], candidates, [config.seed + 1], folder)


def branch_mixtures(
    trained: Mapping[str, float], sources: Sequence[str]
) -> dict[str, str | dict[str, float]]:
    """By the branch's name, its mixture.

    Args:
        trained: what the search trained on.
        sources: that have a branch.
    """
    found: dict[str, str | dict[str, float]] = {UNCHANGED: dict(trained)}
    for source in sources:
        found[f"half_{source}"] = {
            name: (1 - SHARE) * share + SHARE * (name == source) for name, share in trained.items()
        }
    return found


def _trained_on(run: Path, config: Config) -> dict[str, float]:
    """The mixture of the search's run itself."""
    path = run / "mixture.json"
    given: Any = read_mixture(path).search.get("trained_on")
    try:
        return {name: float(given[name]) for name in config.source_names}
    except MISSHAPEN:
        raise UserError(f"{path} is damaged: it does not say what the search trained on") from None


def _settings(run: Path, config: Config) -> dict[str, Any]:
    steps = max(2, round(LENGTH * config.train.steps))
    schedule = {
        "kind": "cosine",
        "peak": PEAK * config.train.schedule.peak,
        "warmup": round(WARMUP * steps),
    }
    return {
        "init_from": str(run.resolve()),
        "train.steps": steps,
        "train.schedule": schedule,
    }


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
