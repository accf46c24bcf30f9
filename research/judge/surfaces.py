"""How well the posterior of one trunk foretells what retraining says; no training.

    python -m research.judge.surfaces data/judge/python/plain.yaml ... [--trunk body]

For every family and target, and for several kinds of evidence: the rank correlation and the root
mean square of the errors over all recorded mixtures but uniform, whose loss (the trunk's own, less
its difference from a plain training) is the level, and the share within the 90% intervals. With
several families the constants are chosen on the others (leave one family out).
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import norm, spearmanr

from research.judge import rules
from research.judge.product import Family, FloatArray
from research.judge.records import Records
from research.judge.truth import RESULTS, SWARM_SEED
from research.surface_lab import Constants, Law, Surface, Values, fit

INTERVAL = 0.9


@dataclass(frozen=True)
class Kind:
    """Which evidence a posterior takes."""

    longest: int
    """Contexts of the law, in tokens."""
    late: float | None = None
    """Scores count from this share of the run on; None for no scores."""
    even: bool = False
    """Whether all windows count alike, rather than by their learning rates."""


KINDS = {
    "pairs": Kind(1),
    "contexts of 2": Kind(2),
    "contexts of 3": Kind(3),
    "pairs, scores": Kind(1, 0.5),
    "contexts of 2, scores": Kind(2, 0.5),
    "contexts of 3, scores": Kind(3, 0.5),
    "pairs, even scores": Kind(1, 0.5, even=True),
    "contexts of 3, even scores": Kind(3, 0.5, even=True),
    "contexts of 3, even scores of the last third": Kind(3, 0.67, even=True),
}
GRID = {
    "kappa": (1.0, 2.0),
    "bend": (0.02, 0.05, 0.15),
    "slope_bias": (0.1, 0.3, 1.0, 2.0),
    "scale": (0.1, 0.3, 1.0),
}


@dataclass(frozen=True)
class Case:
    """What is known of one target."""

    family: Family
    target: str
    found: rules.Evidence
    level: float
    """Loss of plain trainings at uniform."""
    mixtures: FloatArray
    losses: FloatArray
    laws: dict[int, Law]
    """By the length of contexts."""


def cases_of(family: Family, records: Records, trunk: str, seed: int) -> list[Case]:
    """One for every target of a family whose trunk is recorded."""
    record = records.get("search", family.name, trunk, seed)
    runs = [run for run in records.of("train", family.name) if run.seed == SWARM_SEED]
    if record is None or not any(run.name == "uniform" for run in runs):
        return []
    others = [run for run in runs if run.name != "uniform"]
    uniform = next(run for run in runs if run.name == "uniform")
    mixtures = np.array([run.weights for run in others])
    return [
        Case(
            family,
            target,
            rules.evidence(family, record, target),
            uniform.losses[target],
            mixtures,
            np.array([run.losses[target] for run in others]),
            {
                1: remembered(rules.law_of(family, target)),
                **{
                    longest: remembered(rules.longer_law_of(family, target, longest))
                    for longest in (2, 3)
                },
            },
        )
        for target in family.targets
    ]


def remembered(law: Law) -> Law:
    """The same law: what it said of a mixture does not depend on any constant."""
    known: dict[bytes, tuple[float, FloatArray]] = {}

    def recall(mixture: FloatArray) -> tuple[float, FloatArray]:
        key = mixture.tobytes()
        if key not in known:
            known[key] = law(mixture)
        return known[key]

    return recall


def surface_of(case: Case, kind: Kind, constants: Constants) -> Surface:
    count = case.mixtures.shape[1]
    law = case.laws[kind.longest]
    values = Values(np.full((1, count), 1 / count), np.array([case.level]))
    slopes = None if kind.late is None else case.found.late(kind.late).calibrated(kind.even)
    return fit(law, slopes, values, constants)


def errors(case: Case, kind: Kind, constants: Constants) -> tuple[FloatArray, FloatArray]:
    """[N] predicted less seen, and predicted standard deviations."""
    predicted, spread = surface_of(case, kind, constants).predict(case.mixtures)
    return predicted - case.losses, spread


def chosen(cases: Sequence[Case], kind: Kind) -> Constants:
    """Those of the grid with the least squared error, and their misfit to match it."""
    best, least = Constants(), np.inf
    for values in itertools.product(*GRID.values()):
        constants = replace(Constants(), **dict(zip(GRID, values, strict=True)))
        every = np.concatenate([errors(case, kind, constants)[0] for case in cases])
        size = float(np.mean(np.minimum(np.abs(every), 0.5) ** 2))
        if size < least:
            best, least = constants, size
    moved = [0.5 * np.abs(case.mixtures - 1 / case.mixtures.shape[1]).sum(axis=1) for case in cases]
    ratios = np.concatenate(
        [errors(case, kind, best)[0] / part for case, part in zip(cases, moved, strict=True)]
    )
    return replace(best, misfit=float(np.sqrt(np.mean(ratios**2))))


def report(families: Sequence[Family], records: Records, trunk: str, seed: int) -> str:
    by_family = {family.name: cases_of(family, records, trunk, seed) for family in families}
    by_family = {name: cases for name, cases in by_family.items() if cases}
    lines = ["| family: target | evidence | mixtures | Spearman | RMSE | in 90% | constants |"]
    lines.append("|---|---|---|---|---|---|---|")
    width = norm.ppf(0.5 + INTERVAL / 2)
    for label, kind in KINDS.items():
        for name, cases in by_family.items():
            others = [case for other in by_family if other != name for case in by_family[other]]
            constants = chosen(others or cases, kind)
            told = ", ".join(f"{key} {getattr(constants, key):g}" for key in GRID)
            told += f", misfit {constants.misfit:.2f}" + ("" if others else " (same family)")
            for case in cases:
                error, spread = errors(case, kind, constants)
                rank = spearmanr(case.losses + error, case.losses).statistic
                held = np.mean(np.abs(error) < width * spread)
                lines.append(
                    f"| {name}: {case.target} | {label} | {len(error)} | {rank:.2f} | "
                    f"{np.sqrt(np.mean(error**2)):.3f} | {held:.2f} | {told} |"
                )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", type=Path, nargs="+")
    parser.add_argument("--trunk", default="trunk_body")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    families = [Family(path) for path in options.families]
    print(report(families, Records(options.results), options.trunk, options.seed))


if __name__ == "__main__":
    main()
