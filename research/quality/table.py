"""The judge's tables, from the records that are there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.mixture.simplex import effective_sources
from research.quality import statistics
from research.quality.jobs import SWARM, SWARM_SEED
from research.quality.mixtures import swarm_size
from research.quality.records import Record, Records

JUNK = ("junk", "shuffled", "tables")
"""Sources of the families that no target wants."""
ALMOST_ALL = 12
"""Runs of a swarm from which marginal values are estimated, at least."""


@dataclass(frozen=True)
class Entry:
    """One way to a mixture for one target, judged."""

    method: str
    cost: float
    """In proxy runs; of all of a swarm."""
    mixtures: FloatArray
    """[K, S] over search seeds; one row where there is no search."""
    losses: dict[int, float]
    """By evaluation seed; a mean where several searches were trained with the same."""
    scores: list[FloatArray]
    """Of every search, [S]; empty where there are none."""
    trainings: int


def entries(target: str, records: Records) -> dict[str, Entry]:
    """By method. Trainings of the swarm are no method of their own."""
    grouped: dict[str, list[Record]] = defaultdict(list)
    for record in records.all():
        method, *rest = record.name.split(".")
        if record.kind != "train" or method == "swarm":
            continue
        if method == "single":
            grouped[record.name].append(record)
        elif not rest or rest[0] == target:
            grouped[method].append(record)
    return {method: _entry(method, target, found, records) for method, found in grouped.items()}


def _entry(method: str, target: str, trainings: Sequence[Record], records: Records) -> Entry:
    losses: dict[int, list[float]] = defaultdict(list)
    for each in trainings:
        losses[each.seed].append(each.losses[target])
    searches = [
        each
        for each in records.all()
        if each.kind == "search" and each.name == f"{method}.{target}"
    ]
    if searches:
        cost = float(np.mean([each.cost for each in searches]))
        mixtures = np.array([each.weights for each in searches])
    else:
        of_swarm = method.startswith(("regmix", "swarmbest"))
        cost = float(swarm_size(method)) if of_swarm else 0.0
        mixtures = np.array([trainings[0].weights])
    # Methods that compare losses know no gains.
    gains = [each.details.get("gains", [None]) for each in searches]
    scores = [np.array(each) for each in gains if None not in each]
    means = {seed: float(np.mean(found)) for seed, found in losses.items()}
    return Entry(method, cost, mixtures, means, scores, len(trainings))


def swarm(target: str, records: Records) -> tuple[FloatArray, FloatArray]:
    """[N, S] mixtures and [N] losses of the runs that are there."""
    rows = [
        each
        for number in range(SWARM[-1])
        if (each := records.get("train", f"swarm.{number}", SWARM_SEED)) is not None
    ]
    return np.array([each.weights for each in rows]), np.array(
        [each.losses[target] for each in rows]
    )


def report(family: str, sources: Sequence[str], targets: Sequence[str], records: Records) -> str:
    """Everything that is known of a family, in Markdown."""
    by_target = {target: entries(target, records) for target in targets}
    noise = _noise(by_target)
    deviation = None
    lines = [f"## {family}"]
    if noise is not None:
        deviation, freedom = noise
        lines += [
            "",
            f"Standard deviation of one paired difference, over fixed mixtures: {deviation:.4f} "
            f"({freedom} degrees of freedom).",
        ]
    for target, found in by_target.items():
        lines += [
            "",
            f"### {family}: {target}",
            *_table(found, target, sources, records, deviation),
        ]
    return "\n".join([*lines, "", *_verdicts(by_target, deviation)])


def _noise(by_target: dict[str, dict[str, Entry]]) -> tuple[float, int] | None:
    """Of differences to uniform with the same seed, of mixtures that are no search's."""
    groups = []
    for found in by_target.values():
        if "uniform" not in found:
            continue
        uniform = found["uniform"].losses
        for method, entry in found.items():
            if method != "uniform" and len(entry.mixtures) == 1:
                common = sorted(set(entry.losses) & set(uniform))
                groups.append([entry.losses[seed] - uniform[seed] for seed in common])
    return statistics.pooled_deviation(groups)


def _table(
    found: dict[str, Entry],
    target: str,
    sources: Sequence[str],
    records: Records,
    deviation: float | None,
) -> list[str]:
    uniform = found["uniform"]
    junk = [number for number, name in enumerate(sources) if name in JUNK]
    mixtures, losses = swarm(target, records)
    values = statistics.marginal_values(mixtures, losses) if len(losses) >= ALMOST_ALL else None
    gaps = {}
    for method, entry in found.items():
        gap = statistics.paired(entry.losses, uniform.losses)
        if gap is not None:
            gaps[method] = gap
    best = min(gap.mean for gap in gaps.values())
    lines = [
        "| mixture | cost | searches | trainings | mean loss | SD | minus uniform | regret | junk "
        "| effective sources | scores and swarm | against uniform |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for method, gap in sorted(gaps.items(), key=lambda item: item[1].mean):
        entry = found[method]
        mean, spread = statistics.summary(list(entry.losses.values()))
        error = "" if gap.error is None else f" ± {gap.error:.4f}"
        agreement = "-"
        if values is not None and entry.scores:
            each = [statistics.agreement(scores, values) for scores in entry.scores]
            agreement = f"{np.mean(each):.2f}"
        effective = np.mean([effective_sources(row) for row in entry.mixtures])
        lines.append(
            f"| {method} | {entry.cost:.2f} | {len(entry.mixtures) if entry.scores else '-'} "
            f"| {entry.trainings} | {mean:.4f} | {'-' if spread is None else f'{spread:.4f}'} "
            f"| {gap.mean:+.4f}{error} | {gap.mean - best:.4f} "
            f"| {entry.mixtures[:, junk].sum(axis=1).mean():.1%} | {effective:.1f} | {agreement} "
            f"| {'' if method == 'uniform' else statistics.verdict(gap, deviation)} |"
        )
    if len(losses):
        lines.append(
            f"\nSwarm: {len(losses)} runs, losses from {losses.min():.4f} to {losses.max():.4f}."
        )
    return lines


def _verdicts(by_target: dict[str, dict[str, Entry]], deviation: float | None) -> list[str]:
    """The one-run search against what it must beat."""
    rivals = ("uniform", "ngram", "token_pairs", "fastmix_scores", "regmix48", "swarmbest48")
    lines = ["### fastmix, minus the other (paired by seed; at two standard errors)", ""]
    lines += ["| target | " + " | ".join(rivals) + " |", "|---" * (len(rivals) + 1) + "|"]
    for target, found in by_target.items():
        cells = []
        for rival in rivals:
            gap = None
            if "fastmix" in found and rival in found:
                gap = statistics.paired(found["fastmix"].losses, found[rival].losses)
            if gap is None:
                cells.append("not run")
                continue
            error = f" ± {gap.error:.4f}" if gap.error is not None else ""
            cells.append(f"{gap.mean:+.4f}{error}: {statistics.verdict(gap, deviation)}")
        lines.append(f"| {target} | " + " | ".join(cells) + " |")
    return lines
