"""What was predicted before, and seen after fresh models were trained (`fastmix retrain`)."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.mixture.surface import SIGMAS
from fastmix_mega.report.read import Retrained, Run
from fastmix_mega.report.words import minus


@dataclass(frozen=True)
class Comparison:
    """A mixture beside the baseline, on one target; in nats per token, lower is better."""

    target: str
    mixture: str
    predicted: float
    deviation: float
    seen: float
    error: float
    """Standard error of what was seen."""

    @property
    def holds(self) -> bool:
        """Whether what was seen is no surprise, at 90%."""
        return abs(self.predicted - self.seen) <= SIGMAS * math.hypot(self.deviation, self.error)

    @property
    def predicted_text(self) -> str:
        return f"{minus(self.predicted)} ± {SIGMAS * self.deviation:.3f}"

    @property
    def seen_text(self) -> str:
        return f"{minus(self.seen)} ± {SIGMAS * self.error:.3f}"


@dataclass(frozen=True)
class Level(Comparison):
    """A mixture's loss itself, whose error all mixtures share."""

    @property
    def predicted_text(self) -> str:
        return f"{self.predicted:.3f} ± {SIGMAS * self.deviation:.3f}"

    @property
    def seen_text(self) -> str:
        return f"{self.seen:.3f} ± {SIGMAS * self.error:.3f}"


@dataclass(frozen=True)
class RetrainedView:
    """The page's table."""

    baseline: str
    seeds: int
    rows: list[Comparison]
    levels: list[Level]

    @property
    def wrong_levels(self) -> list[str]:
        """Targets whose losses are not where they were predicted."""
        return list(dict.fromkeys(each.target for each in self.levels if not each.holds))


def retrained_view(run: Run) -> RetrainedView | None:
    """None where nothing was retrained at the search's size, or of another answer."""
    given = run.retrained
    if given is None or run.surface is None or not _comparable(run, given):
        return None
    first = given.losses.get(given.baseline)
    if not first:
        return None
    rows = []
    for name, losses in given.losses.items():
        if name == given.baseline or len(losses) != len(first):
            continue
        pair = (
            _weights(run, given.mixtures.get(name)),
            _weights(run, given.mixtures[given.baseline]),
        )
        if pair[0] is None or pair[1] is None:
            continue
        means, deviations = run.surface.surface.differences(pair[0], pair[1])
        for place, target in enumerate(run.surface.targets):
            if target not in first[0] or any(target not in each for each in losses):
                continue
            gaps = [mine[target] - other[target] for mine, other in zip(losses, first, strict=True)]
            rows.append(
                Comparison(
                    target,
                    "this mixture" if name == "found" else name,
                    float(means[place]),
                    float(deviations[place]),
                    statistics.mean(gaps),
                    _error(run.surface.surface.noise(place), gaps),
                )
            )
    return RetrainedView(given.baseline, len(first), rows, _levels(run, given)) if rows else None


def _levels(run: Run, given: Retrained) -> list[Level]:
    assert run.surface is not None
    found = []
    for name, losses in given.losses.items():
        weights = _weights(run, given.mixtures.get(name))
        if weights is None or not losses:
            continue
        predicted = run.surface.surface.predict(weights[None])
        for place, target in enumerate(run.surface.targets):
            if any(target not in each for each in losses):
                continue
            found.append(
                Level(
                    target=target,
                    mixture="this mixture" if name == "found" else name,
                    predicted=float(predicted.mean[0, place]),
                    deviation=float(predicted.deviation[0, place]),
                    seen=statistics.mean(each[target] for each in losses),
                    error=run.surface.surface.noise(place) / math.sqrt(len(losses)),
                )
            )
    return found


def contradicted(view: RetrainedView | None) -> list[str]:
    """Targets about which the surface was wrong."""
    if view is None:
        return []
    return list(dict.fromkeys(row.target for row in view.rows if not row.holds))


def contradictions(view: RetrainedView | None) -> list[str]:
    """Warnings, in words."""
    if view is None:
        return []
    return [
        f"Retraining contradicts what was predicted for {row.target}: {row.mixture} against "
        f"{view.baseline}, predicted {row.predicted_text}, seen {row.seen_text} nats per token. "
        f"This page predicts nothing more about {row.target}."
        for row in view.rows
        if not row.holds
    ] + [
        f"Retraining contradicts the losses that were predicted for {target}: "
        + ", ".join(
            f"{each.mixture} {each.predicted_text}, seen {each.seen_text}"
            for each in view.levels
            if each.target == target
        )
        + " nats per token. Differences between mixtures are free of this error, if the text that "
        "was judged is the target's."
        for target in view.wrong_levels
    ]


def _comparable(run: Run, given: Retrained) -> bool:
    """Whether fresh models were of the proxy's size and budget, and of today's answer."""
    found = _weights(run, given.mixtures.get("found"))
    if found is None or run.mixture is None or given.baseline not in given.mixtures:
        return False
    answer = np.array([source.weight for source in run.mixture.sources])
    same_size = given.train_tokens == run.search.train_tokens
    same_model = not any(each.startswith("model") for each in given.overrides)
    return same_size and same_model and bool(np.allclose(found, answer, atol=1e-9))


def _weights(run: Run, given: str | dict[str, float] | None) -> FloatArray | None:
    """[S], sum 1."""
    if isinstance(given, dict) and set(given) == set(run.names):
        weights = np.array([given[name] for name in run.names])
    elif given == "uniform":
        weights = np.ones(len(run.names))
    elif given == "proportional" and run.mixture is not None:
        weights = np.array([float(source.tokens or 0) for source in run.mixture.sources])
    else:
        return None
    return weights / weights.sum() if weights.sum() > 0 else None


def _error(noise: float, gaps: list[float]) -> float:
    """Of the mean of paired differences; never below what two trainings' seeds make.

    Args:
        noise: SD over seeds of a training.
        gaps: the differences.
    """
    least = noise * math.sqrt(2 / len(gaps))
    return max(least, statistics.stdev(gaps) / math.sqrt(len(gaps))) if len(gaps) > 1 else least
