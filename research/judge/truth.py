"""What mixtures are worth: fresh models trained by sampling, and the searches that found them.

    python -m research.judge.truth data/judge/python/plain.yaml ... --jobs FILE --minutes 30
    python -m research.judge.truth data/judge/python/plain.yaml

The first does the jobs of FILE in order until the time is over, each for all families in turn, and
leaves out what is recorded; a job is a line `NAME SEED`. The second prints the table. Names of
trainings:

    uniform                     the same share of every source
    bigram.TARGET               what a default search begins with
    ngramsN.TARGET              the best for an n-gram law with contexts of N tokens
    swarm.K                     drawn from a Dirichlet law
    near.K                      a known good mixture, its log-weights disturbed
    METHOD.TARGET.sSEED         what the search METHOD.TARGET with that seed found
    rule.RULE.TARGET.sSEED      what a rule of `rules.py` makes of the trunk with that seed
    surfaceN.TARGET[.sSEED]     the surface's, from a seed's trunk and the first N runs of the swarm
    branched.TARGET             the surface's, from seed 1's trunk and its branches of 50 steps
    regmixN.TARGET              RegMix's, fitted to the swarm's first N runs and uniform
    without.SOURCE.NAME         the mixture NAME, the rest in proportion
    carried.FAMILY.NAME         the mixture NAME of another family of the same sources
    best.TARGET                 the best of all that the swarm's seed was spent on, but for the
                                product's own answers; other seeds say what it is worth

and of searches: METHOD.TARGET, of `SEARCHES`; a trunk (`trunk_body`) is for all targets at once.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from research.forked import warm_up
from research.judge import product, rules
from research.judge.branch_runs import losses_of
from research.judge.product import Family, FloatArray
from research.judge.records import Record, Records

RESULTS = Path("research/results/judge.jsonl")
SWARM_SEED = 101
"""Of every run of the swarm: common noise cancels."""
SWARM_SIZE = 32
"""Mixtures, half of them near good ones."""
DICE = 20261126
HEADING = "| mixture | loss (SD, seeds) | minus uniform | regret | below bigrams | weights, % |"
BRANCH_STEPS = 50
HALF = "HALF"
"""In settings: half of the run's steps."""
MOVING = "search.answer=trajectory"
BROAD = [MOVING, "search.initial=uniform", "search.exploration=1"]
TRUNK = [
    *BROAD,
    *("search.step=0", "search.decay=0", "search.target_scores=1"),
    *("search.target_batch=24", "search.warmup=200"),
]
SEARCHES: dict[str, list[str]] = {
    "default": [],
    "bigram_start": [MOVING, "search.initial=bigram"],
    "body": [MOVING, "search.scores=body", "search.initial=uniform", f"search.warmup={HALF}"],
    "body_early": [MOVING, "search.scores=body", "search.initial=uniform"],
    "body_broad": ["search.scores=body", *BROAD, f"search.warmup={HALF}"],
    "body_pairs": [MOVING, "search.scores=body", "search.initial=bigram", "search.step=0.2"],
    "trunk_body": ["search.scores=body", *TRUNK],
    "trunk_all": ["search.scores=all", *TRUNK],
    "trunk_head": ["search.scores=hooks:head", *TRUNK],
    "trunk_slow": ["search.scores=body", *TRUNK, "train.schedule.peak=2e-3"],
}
"""Settings beyond the family's own. The trunks never move; they are what rules are replayed on."""


def do(family: Family, records: Records, name: str, seed: int) -> Record | None:
    """Do a job; None while what it rests on is missing."""
    method = name.split(".")[0]
    if method.startswith("trunk_") or (method in SEARCHES and name.count(".") == 1):
        half = str(family.config.train.steps // 2)
        settings = [each.replace(HALF, half) for each in SEARCHES[method]]
        targets = name.split(".")[1:] or family.targets
        found = product.search(family, targets, seed, settings)
        return Record(
            *("search", family.name, name, seed, found.weights, found.losses, {}),
            *(found.cost, round(found.seconds, 1), settings, found.standard_errors, found.history),
        )
    weights = weights_for(family, records, name)
    if weights is None:
        return None
    found = product.train(family, weights.tolist(), seed)
    law = {
        target: round(family.bigram_loss(weights, target, judged=True), 5)
        for target in family.targets
    }
    short = [float(f"{weight:.6g}") for weight in weights]
    return Record(
        "train", family.name, name, seed, short, found.losses, law, 1.0, round(found.seconds, 1)
    )


def weights_for(family: Family, records: Records, name: str) -> FloatArray | None:
    """[S] of a training; None while what it rests on is missing."""
    kind, *rest = name.split(".")
    count = len(family.sources)
    if kind == "uniform":
        return np.full(count, 1 / count)
    if kind == "swarm":
        return swarm_mixture(int(rest[0]), count)
    if kind == "near":
        return near_mixture(family, records, int(rest[0]))
    if kind == "bigram":
        return family.bigram_mixture(rest[0])
    if kind.startswith("ngrams"):
        law = rules.longer_law_of(family, rest[0], int(kind.removeprefix("ngrams")))
        return rules.least_loss(law, count)
    if kind.startswith(("regmix", "surface")):
        trunk = int(rest[1].removeprefix("s")) if len(rest) > 1 else 1
        return from_swarm(family, records, kind, rest[0], trunk)
    if kind == "branched":
        return from_branches(family, records, rest[0])
    if kind == "best":
        return best_mixture(family, records, rest[0])
    if kind == "without":
        whole = weights_for(family, records, ".".join(rest[1:]))
        if whole is None:
            return None
        left = np.where(np.array(family.sources) == rest[0], 1e-9, whole)
        return left / left.sum()
    if kind == "carried":
        every = (records, *records.others)
        runs = (each.get("train", rest[0], ".".join(rest[1:]), SWARM_SEED) for each in every)
        return next((np.array(run.weights) for run in runs if run is not None), None)
    if kind == "rule":
        return rules.answer(family, records, rest[0], rest[1], int(rest[2].removeprefix("s")))
    found = records.get("search", family.name, f"{kind}.{rest[0]}", int(rest[1].removeprefix("s")))
    return None if found is None else np.maximum(found.weights, 1e-12)


def swarm_mixture(number: int, count: int) -> FloatArray:
    """[S] it depends on nothing else."""
    dice = np.random.default_rng([DICE, number, count])
    strength = np.exp(dice.uniform(np.log(0.3), np.log(3.0)))
    weights: FloatArray = np.maximum(dice.dirichlet(np.full(count, strength)), 1e-9)
    return weights / weights.sum()


def near_mixture(family: Family, records: Records, number: int) -> FloatArray | None:
    """[S] one of the three best mixtures so far of a target, the targets in turn, disturbed."""
    target = family.targets[number % len(family.targets)]
    every = [run for each in (records, *records.others) for run in each.of("train", family.name)]
    runs = [run for run in every if run.seed == SWARM_SEED]
    if len(runs) < 4:
        return None
    dice = np.random.default_rng([DICE, 7, number])
    best = sorted(runs, key=lambda run: run.losses[target])[:3]
    chosen = np.array(best[dice.integers(len(best))].weights)
    logs = np.log(np.maximum(chosen, 0.003)) + dice.normal(0, 0.7, len(chosen))
    weights: FloatArray = np.exp(logs) / np.exp(logs).sum()
    return weights


def best_mixture(family: Family, records: Records, target: str) -> FloatArray | None:
    """[S] the lowest loss of the target with the swarm's seed, once the swarm is whole; the same
    one for all seeds."""
    runs = list(records.of("train", family.name))
    earlier = [run for run in runs if run.name == f"best.{target}"]
    if earlier:
        return np.array(earlier[0].weights)
    if any(
        records.get("train", family.name, f"{part}.{SWARM_SIZE // 2 - 1}", SWARM_SEED) is None
        for part in ("swarm", "near")
    ):
        return None
    others = [
        run for run in runs if run.seed == SWARM_SEED and not run.name.startswith("surface0.")
    ]
    return np.array(min(others, key=lambda run: run.losses[target]).weights)


def from_swarm(
    family: Family, records: Records, kind: str, target: str, seed: int = 1
) -> FloatArray | None:
    """[S] what a method makes of the trunk with a seed, the swarm's first runs and uniform; None
    while one is missing."""
    count = int(kind.removeprefix("regmix").removeprefix("surface"))
    names = ["uniform", *(f"{part}.{each}" for each in range(count) for part in ("swarm", "near"))]
    names = names[: count + 1]
    found = [records.get("train", family.name, name, SWARM_SEED) for name in names]
    runs = [run for run in found if run is not None]
    trunk = records.get("search", family.name, "trunk_body", seed)
    if len(runs) < len(names) or trunk is None:
        return None
    mixtures = np.array([run.weights for run in runs])
    losses = np.array([[run.losses[each] for each in family.targets] for run in runs])
    place = family.targets.index(target)
    if kind.startswith("regmix"):
        return product.swarm_fit(mixtures, losses[:, place], zlib.crc32(kind.encode()))
    surfaces = product.Surfaces(family, trunk)
    values = (mixtures, losses) if count else None
    return surfaces.answer(surfaces.fitted(product.SurfaceConstants(), values), place)


def from_branches(family: Family, records: Records, target: str) -> FloatArray | None:
    """[S] None while the trunk or a branch is missing."""
    every = (records, *records.others)
    known = (losses_of(family, each, BRANCH_STEPS) for each in every)
    branches = next((found for found in known if found is not None), None)
    trunk = records.get("search", family.name, "trunk_body", 1)
    if branches is None or trunk is None:
        return None
    surfaces = product.Surfaces(family, trunk)
    return surfaces.answer(surfaces.with_branches(branches), family.targets.index(target))


def table(family: Family, records: Records) -> str:
    """Per target, all mixtures from the best down: means over seeds, paired with uniform."""
    lines = []
    by_name: dict[str, list[Record]] = {}
    for run in records.of("train", family.name):
        by_name.setdefault(run.name, []).append(run)
    uniform = {run.seed: run for run in by_name.get("uniform", [])}
    for target in family.targets:
        lines += [f"\n### {family.name}: {target}", ""]
        lines.append(
            "| mixture | loss (SD, seeds) | minus uniform | regret | below bigrams | weights |"
        )
        lines.append("|---|---|---|---|---|---|")
        gaps = {
            name: [run.losses[target] - uniform[run.seed].losses[target] for run in runs]
            for name, runs in by_name.items()
            if all(run.seed in uniform for run in runs)
        }
        means = {name: statistics.mean(values) for name, values in gaps.items()}
        for name in sorted(means, key=lambda name: means[name]):
            if name.startswith(("swarm.", "near.")) and means[name] > min(means.values()) + 0.03:
                continue
            runs = by_name[name]
            losses = [run.losses[target] for run in runs]
            spread = statistics.stdev(losses) if len(losses) > 1 else 0.0
            error = statistics.stdev(gaps[name]) / len(runs) ** 0.5 if len(runs) > 1 else 0.0
            below = statistics.mean(run.bigram_losses[target] - run.losses[target] for run in runs)
            cells = [
                name,
                f"{statistics.mean(losses):.3f} ({spread:.3f}, {len(runs)})",
                f"{means[name]:+.3f}" + (f" ± {error:.3f}" if error else ""),
                f"{means[name] - min(means.values()):.3f}",
                f"{below:.2f}",
                _told(family, runs[0].weights),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _told(family: Family, weights: Sequence[float]) -> str:
    pairs = sorted(zip(weights, family.sources, strict=True), reverse=True)
    return ", ".join(f"{name} {100 * weight:.0f}" for weight, name in pairs[:5] if weight > 0.01)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", type=Path, nargs="+")
    parser.add_argument("--jobs", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument(
        "--others", type=Path, nargs="*", default=[], help="former studies' results, for near.K"
    )
    options = parser.parse_args()
    families = [Family(path) for path in options.families]
    records = Records(options.results, options.others)
    if options.jobs is None:
        print("\n".join(table(family, records) for family in families))
        return
    for family in families:
        records.belong_to(family.name, family.identity())
    warm_up()
    work(families, records, options.jobs, options.minutes)


def work(families: Sequence[Family], records: Records, jobs: Path, minutes: float) -> None:
    """Do the first job that is not recorded and can be done, again and again; the file is read
    anew each time. A job is done for all families before the next one begins, so that a cut leaves
    them with equally many."""
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        for (name, seed), family in itertools.product(_read_jobs(jobs), families):
            if not _concerns(family, name):
                continue
            if any(records.get(kind, family.name, name, seed) for kind in ("search", "train")):
                continue
            found = do(family, records, name, seed)
            if found is None:
                continue
            records.add(found)
            told = {target: round(loss, 3) for target, loss in found.losses.items()}
            print(f"{family.name} {name} {seed} {found.seconds:.0f} s {told}", flush=True)
            break
        else:
            return


def _concerns(family: Family, name: str) -> bool:
    """False for a target that the family does not have."""
    kind, *rest = name.split(".")
    return (
        not kind.startswith(("bigram", "ngrams", "surface", "regmix", "best", "branched"))
        or rest[0] in family.targets
    )


def _read_jobs(path: Path) -> list[tuple[str, int]]:
    lines = (line.split("#")[0].split() for line in path.read_text().splitlines())
    return [(words[0], int(words[1])) for words in lines if words]


if __name__ == "__main__":
    main()
