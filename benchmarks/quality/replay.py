"""Other settings of the rule on the scores of finished searches: no training.

    python -m benchmarks.quality.replay benchmarks/quality/configs/demo.yaml

A search's record holds its scores. Here the controller takes them again with other settings, and a
fit to the swarm (RegMix's regression) predicts the loss of what comes out. Two things are left out:
scores would be a little different where another mixture had been trained on, and the prediction has
errors of its own, which are printed. It is for choosing what deserves trainings, not for verdicts.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.records import Record, Records
from benchmarks.quality.runs import Family
from benchmarks.quality.table import swarm
from fastmix_mega.mixture.controller import FastMixController
from fastmix_mega.mixture.evidence import Evidence, drift
from fastmix_mega.mixture.rule import FloatArray, geometric_mean

SETTINGS: dict[str, float] = {"step": 0.2, "decay": 0.7, "prior_strength": 0.05, "averaged": 0.5}
"""The defaults; `averaged` is the share of the run that the result is a mean over."""
VARIANTS: list[dict[str, float]] = [
    {},
    *({"prior_strength": value} for value in (0.0, 0.02, 0.1, 0.2)),
    *({"step": value} for value in (0.1, 0.3, 0.4)),
    *({"decay": value} for value in (0.0, 0.5, 0.9)),
    *({"averaged": value} for value in (0.25, 0.75, 1.0)),
]


def windows(history: Sequence[dict[str, Any]], decay: float) -> list[FloatArray]:
    """[3, S] sums of every outer step, from the decayed means that the history holds.

    The sums of squares are 0: mixtures do not depend on them.
    """
    found = []
    total = weight = np.zeros(len(history[0]["scores"]))
    for row in history:
        count = np.array(row["counts"], np.float64)
        faded_weight = decay * weight
        weight = faded_weight + count
        new_total = np.array(row["scores"]) * weight
        found.append(np.stack((new_total - decay * total, np.zeros_like(count), count)))
        total = new_total
    return found


def replay(sums: Sequence[FloatArray], settings: dict[str, float]) -> FloatArray:
    """[K, S] logarithms of the mixtures after every outer step."""
    count = sums[0].shape[1]
    controller = FastMixController(
        np.full(count, 1 / count),
        settings["step"],
        settings["decay"],
        prior_strength=settings["prior_strength"],
    )
    trajectory = []
    for window in sums:
        controller.update(window)
        trajectory.append(np.log(controller.mixture))
    return np.array(trajectory)


def averaged(trajectory: FloatArray, share: float) -> FloatArray:
    """[S] the geometric mean over the last part of a run."""
    first = len(trajectory) - max(1, round(share * len(trajectory)))
    return geometric_mean(trajectory[first:])


def evidence(sums: Sequence[FloatArray], trajectory: FloatArray) -> Evidence:
    """What `mixture.json` would say of the first windows."""
    count = trajectory.shape[1]
    initial = np.full(count, 1 / count)
    found = Evidence()
    before = [initial, *np.exp(trajectory[:-1])]
    for mixture, window in zip(before, sums, strict=True):
        found.add(mixture, initial, window)
    return found


def settled_at(trajectory: FloatArray, tolerance: float) -> int | None:
    """The outer step at which `search.stop_when_converged` would have ended the search."""
    for end in range(1, len(trajectory) + 1):
        if drift(trajectory[:end]) <= tolerance:
            return end
    return None


def predictor(
    target: str, records: Records
) -> tuple[Callable[[FloatArray], FloatArray], float, int]:
    """Predicted losses of [M, S] mixtures; the cross-validated error as a standard deviation; and
    how many runs it rests on."""
    from fastmix_mega.baselines import regmix

    mixtures, losses = swarm(target, records)
    fitted = regmix.fit(mixtures, losses)
    error = float(np.sqrt(fitted.errors[fitted.family] * losses.var()))
    return lambda rows: fitted(rows)[:, 0], error, len(losses)


def table(family: Family, records: Records) -> list[str]:
    """Predicted loss minus uniform's, per variant and target, means over searches."""
    searches = [each for each in records.all() if each.name.startswith("fastmix.")]
    by_target = {
        target: [
            each for each in searches if each.kind == "search" and each.name == f"fastmix.{target}"
        ]
        for target in family.targets
    }
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
            mixtures = np.array([_result(each, settings) for each in found])
            gaps.append(float(predict(mixtures).mean() - predict(uniform)[0]))
        name = ", ".join(f"{key} {value:g}" for key, value in variant.items()) or "defaults"
        cells = " | ".join(f"{gap:+.3f}" for gap in gaps)
        lines.append(f"| {name} | {cells} | {np.mean(gaps):+.4f} |")
    errors = ", ".join(
        f"{target} {error:.3f} ({runs} runs)" for target, (_, error, runs) in predictors.items()
    )
    return [*lines, "", f"Cross-validated standard error of one prediction: {errors}."]


def _result(search: Record, settings: dict[str, float]) -> FloatArray:
    sums = windows(search.details["history"], SETTINGS["decay"])
    return averaged(replay(sums, settings), settings["averaged"])


def convergence(records: Records) -> list[str]:
    """When searches would have ended, and with what evidence."""
    lines = [
        "| search | outer steps | ends at, 5% | moved by then | ends at, 10% | moved | better |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for each in records.all():
        if each.kind != "search" or not each.name.startswith("fastmix."):
            continue
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
        for each in records.all():
            if each.kind != "search" or each.name != f"fastmix.{target}":
                continue
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
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/mixture_quality"))
    options = parser.parse_args()
    for path in options.families:
        family = Family(path)
        records = Records(options.results / family.name, family.identity())
        parts = [table(family, records), convergence(records), calibration(family, records)]
        print(f"## {family.name}", *("\n".join(["", *part]) for part in parts), sep="\n")


if __name__ == "__main__":
    main()
