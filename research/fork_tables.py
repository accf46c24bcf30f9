"""The tables of the fork test, from its records (see `research.fork_test`)."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from fastmix_mega.mixture.pool import rank_correlation
from research.fork_scores import PAIRS, SCORES, FloatArray

Correlation = Callable[[FloatArray, FloatArray], float]


def pearson(first: FloatArray, second: FloatArray) -> float:
    return float(np.corrcoef(first, second)[0, 1])


def beyond(given: FloatArray) -> Correlation:
    """Partial correlation: Pearson's of what a straight line through `given`, [S], leaves."""

    def left(values: FloatArray) -> FloatArray:
        centred, line = values - values.mean(), given - given.mean()
        return centred - line * (line @ centred) / (line @ line)

    return lambda first, second: pearson(left(first), left(second))


def agreement(repeated: FloatArray, correlation: Correlation) -> float:
    """Mean correlation between two of R repetitions, [R, S]; NaN if there is one alone."""
    pairs = [correlation(one, other) for one, other in combinations(repeated, 2)]
    return statistics.fmean(pairs) if pairs else float("nan")


def ceiling(repeated: FloatArray, correlation: Correlation, averaged: bool) -> float:
    """What a score that knew the expected effect would have as correlation with a measured one.

    Args:
        repeated: [R, S] effects of R repetitions.
        correlation: Pearson's or Spearman's.
        averaged: with the mean of the repetitions (Spearman-Brown), and not with a single one.
    """
    reliability = max(0.0, agreement(repeated, correlation))
    if averaged:
        count = len(repeated)
        reliability = count * reliability / (1 + (count - 1) * reliability)
    return float(reliability**0.5) if len(repeated) > 1 else float("nan")


@dataclass(frozen=True)
class Case:
    """One size, point, horizon and target."""

    size: str
    parameters: int
    step: int
    horizon: int
    target: str
    effects: FloatArray
    """[R, S]"""
    scores: dict[str, FloatArray]
    """[R, S] by name."""

    def single(self, name: str, correlation: Correlation) -> list[float]:
        """Per repetition, of its own scores and effects."""
        both = zip(self.scores[name], self.effects, strict=True)
        return [correlation(score, effect) for score, effect in both]

    def averaged(self, name: str, correlation: Correlation) -> float:
        """Of the mean scores with the mean effects of all repetitions."""
        return correlation(self.scores[name].mean(0), self.effects.mean(0))


def cases(record: dict[str, Any], without: Sequence[str] = ()) -> list[Case]:
    """All of a record, of the sources that are not left out."""
    found = []
    kept = [number for number, name in enumerate(record["sources"]) if name not in without]
    for point in record["points"]:
        every = point["repetitions"]
        if not every:
            continue
        for number, horizon in enumerate(record["horizons"]):
            for target, name in enumerate(record["targets"]):
                effects = np.array([each["effects"][number][target] for each in every])[:, kept]
                scores = {
                    score: np.array([each["scores"][score][target] for each in every])[:, kept]
                    for score in SCORES
                }
                total = record["parameters"]["all"]
                found.append(
                    Case(record["size"], total, point["step"], horizon, name, effects, scores)
                )
    return found


def tables(records: Sequence[dict[str, Any]], without: Sequence[str] = ()) -> str:
    """All tables as Markdown; correlations are over the sources that are not left out."""
    every = [cases(record, without) for record in records]
    flat = [case for found in every for case in found]
    return "\n\n".join(
        [
            "What was run\n\n" + runs(records),
            "Pearson, mean over points and targets of the repetitions' means\n\n"
            + summary(every, pearson),
            "Spearman, the same\n\n" + summary(every, rank_correlation),
            "Pearson of what token pairs leave of both (partial correlation), the same\n\n"
            + left_over(every),
            "Pearson between two repetitions' scores, mean over points and targets\n\n"
            + repeated(every),
            "Pearson, each repetition by itself (mean ± SD)\n\n" + details(flat, pearson),
            "Spearman, each repetition by itself (mean ± SD)\n\n" + details(flat, rank_correlation),
        ]
    )


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def runs(records: Sequence[dict[str, Any]]) -> str:
    rows = []
    for record in records:
        sizes = record["parameters"]
        for point in record["points"]:
            if not point["repetitions"]:
                continue
            effects = np.array([each["effects"] for each in point["repetitions"]])  # [R, H, K, S]
            spread = effects.mean(0).std(-1)  # [H, K]
            losses = zip(record["targets"], point["losses"], strict=True)
            rows.append(
                [
                    record["size"],
                    f"{sizes['all'] / 1e6:.2f}M ({sizes['head'] / sizes['all']:.0%})",
                    f"{point['step']} of {record['steps']}",
                    f"{point['tokens'] / 1e3:.0f}k",
                    f"{point['rate']:.1e}",
                    ", ".join(f"{name} {loss:.3f}" for name, loss in losses),
                    ", ".join(
                        f"{horizon}: {' / '.join(f'{each:.3f}' for each in row)}"
                        for horizon, row in zip(record["horizons"], spread, strict=True)
                    ),
                    str(len(effects)),
                ]
            )
    head = ["size", "parameters (head)", "step", "tokens", "rate", "losses"]
    return markdown([*head, "SD of effects over sources", "repetitions"], rows)


def summary(every: Sequence[Sequence[Case]], correlation: Correlation) -> str:
    """A row per size and horizon."""
    rows = []
    for found in every:
        for horizon in sorted({case.horizon for case in found}):
            of = [case for case in found if case.horizon == horizon]
            ceilings = [ceiling(case.effects, correlation, True) for case in of]
            rows.append(
                [
                    f"{of[0].parameters / 1e6:.2f}M",
                    str(horizon),
                    number(statistics.fmean(ceilings)),
                    *(
                        number(statistics.fmean(case.averaged(name, correlation) for case in of))
                        for name in SCORES
                    ),
                ]
            )
    return markdown(["parameters", "horizon", "ceiling", *SCORES], rows)


def left_over(every: Sequence[Sequence[Case]]) -> str:
    """As `summary`, beyond token pairs."""
    rows = []
    for found in every:
        for horizon in sorted({case.horizon for case in found}):
            of = [case for case in found if case.horizon == horizon]
            laws = [beyond(case.scores[PAIRS].mean(0)) for case in of]
            both = list(zip(of, laws, strict=True))
            rows.append(
                [
                    f"{of[0].parameters / 1e6:.2f}M",
                    str(horizon),
                    number(
                        statistics.fmean(ceiling(case.effects, law, True) for case, law in both)
                    ),
                    *(
                        number(statistics.fmean(case.averaged(name, law) for case, law in both))
                        for name in SCORES
                        if name != PAIRS
                    ),
                ]
            )
    names = [name for name in SCORES if name != PAIRS]
    return markdown(["parameters", "horizon", "ceiling", *names], rows)


def repeated(every: Sequence[Sequence[Case]]) -> str:
    """A row per size: how much of a score is its own noise."""
    rows = []
    for found in every:
        of = [case for case in found if case.horizon == found[0].horizon]
        cells = (
            number(statistics.fmean(agreement(case.scores[name], pearson) for case in of))
            for name in SCORES
            if name != PAIRS
        )
        rows.append([f"{of[0].parameters / 1e6:.2f}M", *cells])
    return markdown(["parameters", *(name for name in SCORES if name != PAIRS)], rows)


def details(flat: Sequence[Case], correlation: Correlation) -> str:
    """A row per size, point, horizon and target."""
    rows = []
    for case in flat:
        cells = []
        for name in SCORES:
            values = case.single(name, correlation)
            told = number(statistics.fmean(values))
            if len(values) > 1:
                told += f" ± {statistics.stdev(values):.2f}"
            cells.append(told)
        rows.append(
            [
                case.size,
                str(case.step),
                str(case.horizon),
                case.target,
                number(ceiling(case.effects, correlation, False)),
                *cells,
            ]
        )
    return markdown(["size", "step", "horizon", "target", "ceiling", *SCORES], rows)


def number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2f}"
