"""How well the product's loss surface foretells what retraining says; no training.

    python -m research.judge.surfaces data/judge/python/plain.yaml ... [--others FILE ...]

A trunk's record is replayed through the product's controller, as a search for each target alone
would have seen it. Three tables: what that one run foretells of every mixture that was retrained;
how much of its error is the noise of these trainings' own seeds, from mixtures that two seeds were
spent on; and what it foretells once some runs are evidence, beside RegMix fitted to the same ones.
With several families the sizes of errors are chosen on the others, by the likelihood of their
losses (leave one family out).
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, spearmanr

from research.judge import product
from research.judge.product import Family, FloatArray
from research.judge.records import Records
from research.judge.truth import RESULTS, SWARM_SEED

WIDTH = float(norm.ppf(0.95))
"""Half of a 90% interval, in standard deviations."""
GRID = {"scale": (0.14, 0.2, 0.3), "slope_bias": (0.5, 0.7, 1.0), "misfit": (0.05, 0.08, 0.12)}
RUNS = (4, 8, 16, 24)
"""Of a family, that are evidence."""
LEAST_LEFT = 6
"""Mixtures to foretell."""
DRAWS = 6
"""Of which runs are evidence."""


@dataclass(frozen=True)
class Foretold:
    """Losses of some mixtures, predicted and seen."""

    predicted: FloatArray
    """[N]"""
    deviation: FloatArray
    """[N]; NaN where a method tells none."""
    seen: FloatArray
    """[N]"""

    @property
    def error(self) -> FloatArray:
        return self.predicted - self.seen

    @property
    def size(self) -> float:
        """Root mean square of the errors."""
        return float(np.sqrt(np.mean(self.error**2)))

    @property
    def rank(self) -> float:
        return float(spearmanr(self.predicted, self.seen).statistic)

    @property
    def held(self) -> float:
        """Share in the 90% intervals."""
        return float(np.mean(np.abs(self.error) < WIDTH * self.deviation))

    @property
    def surprise(self) -> float:
        """Minus the mean log density of what was seen."""
        ratio = self.error / self.deviation
        return float(np.mean(0.5 * ratio**2 + np.log(self.deviation)))


@dataclass(frozen=True)
class Judged:
    """A family with what was retrained of it."""

    family: Family
    surfaces: product.Surfaces
    mixtures: FloatArray
    """[N, S] uniform first."""
    losses: FloatArray
    """[N, K]"""

    @property
    def targets(self) -> list[str]:
        return self.family.targets

    def alone(self, target: int, constants: product.SurfaceConstants) -> Foretold:
        """What the run itself foretells of all mixtures but uniform."""
        found = self.surfaces.fitted(constants)
        predicted = found.predict(self.mixtures[1:])
        seen = self.losses[1:, target]
        return Foretold(predicted.mean[:, target], predicted.deviation[:, target], seen)

    def parts(self, runs: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Which rows are evidence, uniform among them, and which are not."""
        count = len(self.mixtures)
        for number in range(DRAWS):
            order = 1 + np.random.default_rng([number, runs]).permutation(count - 1)
            yield np.append(0, order[:runs]), order[runs:]

    def with_runs(
        self,
        known: NDArray[np.int64],
        left: NDArray[np.int64],
        constants: product.SurfaceConstants,
        trunk: bool = True,
    ) -> list[Foretold]:
        """By target, what the run foretells with some runs as evidence."""
        values = (self.mixtures[known], self.losses[known])
        found = self.surfaces.fitted(constants, values, trunk).predict(self.mixtures[left])
        return [
            Foretold(found.mean[:, k], found.deviation[:, k], self.losses[left, k])
            for k in range(len(self.targets))
        ]

    def regmix(self, known: NDArray[np.int64], left: NDArray[np.int64], target: int) -> Foretold:
        """What RegMix foretells from some runs, its regression chosen by cross-validation."""
        predicted = product.regmix_predictions(
            self.mixtures[known], self.losses[known, target], self.mixtures[left]
        )
        nothing = np.full(len(left), np.nan)
        return Foretold(predicted, nothing, self.losses[left, target])


def judged(
    family: Family, records: Records, seed: int, trunk_name: str = "trunk_body"
) -> Judged | None:
    """None while its trunk or the training at uniform is missing.

    Former studies' runs count as differences from their own training at uniform.
    """
    every = (records, *records.others)
    trunks = (each.get("search", family.name, trunk_name, seed) for each in every)
    trunk = next((found for found in trunks if found is not None), None)
    uniform = records.get("train", family.name, "uniform", SWARM_SEED)
    if trunk is None or uniform is None:
        return None
    level = np.array([uniform.losses[target] for target in family.targets])
    mixtures, losses = [np.array(uniform.weights)], [level]
    for each in every:
        own = each.get("train", family.name, "uniform", SWARM_SEED)
        for run in each.of("train", family.name):
            if own is not None and run.seed == SWARM_SEED and run.name != "uniform":
                mixtures.append(np.array(run.weights))
                less = [run.losses[target] - own.losses[target] for target in family.targets]
                losses.append(level + np.array(less))
    surfaces = product.Surfaces(family, trunk)
    return Judged(family, surfaces, np.array(mixtures), np.array(losses))


def chosen(others: Sequence[Judged]) -> product.SurfaceConstants:
    """The sizes of errors at which other families' losses surprise least, without runs and with
    eight of them."""
    best, least = product.SurfaceConstants(), np.inf
    for values in itertools.product(*GRID.values()):
        constants = replace(best, **dict(zip(GRID, values, strict=True)))
        found = []
        for each in others:
            found += [each.alone(k, constants) for k in range(len(each.targets))]
            for known, left in itertools.islice(each.parts(8), 2):
                if len(left) >= LEAST_LEFT:
                    found += each.with_runs(known, left, constants)
        surprise = float(np.mean([each.surprise for each in found]))
        if surprise < least:
            best, least = constants, surprise
    return best


def alone_table(every: Sequence[Judged], constants: dict[str, product.SurfaceConstants]) -> str:
    """What one run foretells; `less its level` are the errors of differences from uniform."""
    lines = [
        "| family: target | mixtures | SD seen | Spearman | RMSE | less its level | in 90% "
        "| constants |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in every:
        own = constants[each.family.name]
        for number, target in enumerate(each.targets):
            found = each.alone(number, own)
            at_uniform = each.surfaces.fitted(own).predict(each.mixtures[:1]).mean[0, number]
            shifted = found.error - (at_uniform - each.losses[0, number])
            lines.append(
                f"| {each.family.name}: {target} | {len(found.seen)} | {np.std(found.seen):.3f} | "
                f"{found.rank:.2f} | {found.size:.3f} | {np.sqrt(np.mean(shifted**2)):.3f} | "
                f"{found.held:.2f} | {', '.join(f'{getattr(own, key):g}' for key in GRID)} |"
            )
    return "\n".join(lines)


def noise_table(
    every: Sequence[Judged], records: Records, constants: dict[str, product.SurfaceConstants]
) -> str:
    """Of differences from uniform with the same seed, on mixtures that two other seeds than the
    swarm's were spent on.

    The product of the errors with two seeds has the square of the surface's own error as its mean:
    their noise is independent.
    """
    lines = [
        "| family: target | mixtures | SD over seeds | RMSE | without the seeds' noise |",
        "|---|---|---|---|---|",
    ]
    for each in every:
        runs = list(records.of("train", each.family.name))
        seen = {(run.name, run.seed): run for run in runs if run.seed != SWARM_SEED}
        names = sorted({name for name, _ in seen if name.startswith("best.")})
        seeds = sorted({seed for _, seed in seen})[:2]
        names = [name for name in names if all((name, seed) in seen for seed in seeds)]
        if not names:
            continue
        mixtures = np.array([seen[name, seeds[0]].weights for name in names])
        found = each.surfaces.fitted(constants[each.family.name])
        at = np.concatenate((each.mixtures[:1], mixtures))
        predicted = found.predict(at).mean
        losses = np.array(
            [
                [
                    [seen[name, seed].losses[target] for target in each.targets]
                    for name in ("uniform", *names)
                ]
                for seed in seeds
            ]
        )
        gaps = losses[:, 1:] - losses[:, :1]  # [2, N, K]
        errors = predicted[1:] - predicted[0] - gaps
        noises = np.sqrt(np.mean((gaps[0] - gaps[1]) ** 2, axis=0) / 2)
        sizes = np.sqrt(np.mean(errors**2, axis=(0, 1)))
        own = np.sqrt(np.maximum(np.mean(errors[0] * errors[1], axis=0), 0.0))
        for number, target in enumerate(each.targets):
            lines.append(
                f"| {each.family.name}: {target} | {len(names)} | {noises[number]:.3f} | "
                f"{sizes[number]:.3f} | {own[number]:.3f} |"
            )
    return "\n".join(lines)


def runs_table(every: Sequence[Judged], constants: dict[str, product.SurfaceConstants]) -> str:
    """What runs add: RMSE and Spearman on the mixtures that no evidence held, means over draws."""
    lines = [
        "| family: target | runs | left | surface: RMSE, Spearman, in 90% | without the trunk | "
        "RegMix |",
        "|---|---|---|---|---|---|",
    ]
    for each, runs in itertools.product(every, RUNS):
        if len(each.mixtures) - 1 - runs < LEAST_LEFT:
            continue
        own = constants[each.family.name]
        parts = list(each.parts(runs))
        surface = [each.with_runs(*part, own) for part in parts]
        untrained = [each.with_runs(*part, own, trunk=False) for part in parts]
        for number, target in enumerate(each.targets):
            regmix = [each.regmix(*part, number) for part in parts]
            mine = [found[number] for found in surface]
            plain = [found[number] for found in untrained]
            held = np.mean([found.held for found in mine])
            lines.append(
                f"| {each.family.name}: {target} | {runs} | {len(parts[0][1])} | {_told(mine)}, "
                f"{held:.2f} | {_told(plain)} | {_told(regmix)} |"
            )
    return "\n".join(lines)


def _told(found: Sequence[Foretold]) -> str:
    size = np.sqrt(np.mean([each.size**2 for each in found]))
    return f"{size:.3f}, {np.mean([each.rank for each in found]):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", type=Path, nargs="+")
    parser.add_argument("--seed", type=int, default=1, help="of the trunk")
    parser.add_argument("--trunk", default="trunk_body", help="a search of truth.py")
    parser.add_argument(
        "--product", action="store_true", help="with the product's constants for all families"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--others", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    records = Records(options.results, options.others)
    given = [
        judged(Family(path), records, options.seed, options.trunk) for path in options.families
    ]
    every = [each for each in given if each is not None]
    constants = {}
    for each in every:
        others = [other for other in every if other is not each]
        constants[each.family.name] = (
            product.SurfaceConstants() if options.product else chosen(others or every)
        )
    print(alone_table(every, constants), "", noise_table(every, records, constants), "", sep="\n")
    print(runs_table(every, constants), flush=True)


if __name__ == "__main__":
    main()
