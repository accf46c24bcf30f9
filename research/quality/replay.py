"""Other settings of the rule on the scores of finished searches: no training.

    python -m research.quality.replay research/quality/configs/demo.yaml

A search's record holds its scores. Here the controller takes them again with other settings, and a
fit to the swarm (RegMix's regression) predicts the loss of what comes out. Two things are left out:
scores would be a little different where another mixture had been trained on, and the prediction has
errors of its own, which are printed. It is for choosing what deserves trainings, not for verdicts.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fastmix_mega.arrays import FloatArray
from research.quality.records import Record, Records
from research.quality.rules import (
    REPLAYED,
    SETTINGS,
    VARIANTS,
    averaged,
    evidence,
    replay,
    replayed,
    settled_at,
    windows,
)
from research.quality.runs import Family
from research.quality.table import swarm


def recorded(records: Records, target: str | None = None) -> list[Record]:
    """The searches to replay, of one target or of all."""
    prefix = f"{REPLAYED}."
    return [
        each
        for each in records.all()
        if each.kind == "search"
        and each.name.startswith(prefix)
        and target in (None, each.name.removeprefix(prefix))
    ]


def predictor(
    target: str, records: Records
) -> tuple[Callable[[FloatArray], FloatArray], float, int]:
    """Predicted losses of [M, S] mixtures; the cross-validated error as a standard deviation; and
    how many runs it rests on."""
    from fastmix_mega.mixture import regression as regmix

    mixtures, losses = swarm(target, records)
    fitted = regmix.fit(mixtures, losses)
    error = float(np.sqrt(fitted.errors[fitted.family] * losses.var()))
    return lambda rows: fitted(rows)[:, 0], error, len(losses)


def table(family: Family, records: Records) -> list[str]:
    """Predicted loss minus uniform's, per variant and target, means over searches."""
    by_target = {target: recorded(records, target) for target in family.targets}
    by_target = {target: found for target, found in by_target.items() if found}
    count = len(family.config.sources)
    uniform = np.full((1, count), 1 / count)
    lines = ["| setting | " + " | ".join(by_target) + " | mean |"]
    lines.append("|---" * (len(by_target) + 2) + "|")
    predictors = {target: predictor(target, records) for target in by_target}
    for variant in VARIANTS:
        settings = SETTINGS | variant
        gaps = []
        for target, found in by_target.items():
            predict = predictors[target][0]
            mixtures = np.array([replayed(each.details["history"], settings) for each in found])
            gaps.append(float(predict(mixtures).mean() - predict(uniform)[0]))
        name = ", ".join(f"{key} {value:g}" for key, value in variant.items()) or "defaults"
        cells = " | ".join(f"{gap:+.3f}" for gap in gaps)
        lines.append(f"| {name} | {cells} | {np.mean(gaps):+.4f} |")
    errors = ", ".join(
        f"{target} {error:.3f} ({runs} runs)" for target, (_, error, runs) in predictors.items()
    )
    return [*lines, "", f"Cross-validated standard error of one prediction: {errors}."]


def convergence(records: Records) -> list[str]:
    """When searches would have ended, and with what evidence."""
    lines = [
        "| search | outer steps | ends at, 5% | moved by then | ends at, 10% | moved | better |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for each in recorded(records):
        sums = windows(each.details["history"], SETTINGS["decay"])
        trajectory = replay(sums, SETTINGS)
        cells = []
        for tolerance in (0.05, 0.1):
            end = settled_at(trajectory, tolerance)
            if end is None:
                cells += ["-", "-"]
                continue
            early = averaged(trajectory[:end], SETTINGS["averaged"])
            whole = averaged(trajectory, SETTINGS["averaged"])
            cells += [str(end), f"{np.abs(early - whole).sum() / 2:.1%}"]
        better = evidence(sums, trajectory).probability
        lines.append(
            f"| {each.name} seed {each.seed} | {len(trajectory)} | {' | '.join(cells)} "
            f"| {'-' if better is None else f'{better:.2%}'} |"
        )
    return lines


def calibration(family: Family, records: Records) -> list[str]:
    """Searches cut short after every outer step: what they would have said of themselves, and
    whether the fit to the swarm agrees that their mixture is better than uniform."""
    count = len(family.config.sources)
    uniform = np.full((1, count), 1 / count)
    said: list[float] = []
    gaps: list[float] = []
    for target in family.targets:
        predict = predictor(target, records)[0]
        for each in recorded(records, target):
            sums = windows(each.details["history"], SETTINGS["decay"])
            trajectory = replay(sums, SETTINGS)
            for end in range(2, len(trajectory) + 1):
                better = evidence(sums[:end], trajectory[:end]).probability
                mixture = averaged(trajectory[:end], SETTINGS["averaged"])
                if better is not None:
                    said.append(better)
                    gaps.append(float(predict(mixture[None])[0] - predict(uniform)[0]))
    lines = ["| said to be better | cases | are, by the swarm | mean gap |", "|---|---|---|---|"]
    for low, high in itertools.pairwise((0.0, 0.5, 0.8, 0.95, 0.99, 1.01)):
        chosen = [gap for gap, better in zip(gaps, said, strict=True) if low <= better < high]
        if chosen:
            share = np.mean([gap < 0 for gap in chosen])
            name = f"{low:.0%} to {min(high, 1):.0%}"
            lines.append(f"| {name} | {len(chosen)} | {share:.1%} | {np.mean(chosen):+.3f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("families", type=Path, nargs="+")
    parser.add_argument("--results", type=Path, default=Path("research/results/mixture_quality"))
    options = parser.parse_args()
    for path in options.families:
        family = Family(path)
        records = family.records(options.results)
        parts = [table(family, records), convergence(records), calibration(family, records)]
        print(f"## {family.name}", *("\n".join(["", *part]) for part in parts), sep="\n")


if __name__ == "__main__":
    main()
