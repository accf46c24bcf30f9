"""Do short branches of a trunk tell what mixtures are worth?

    python -m research.judge.branches FAMILY.yaml ... --train [--steps 100 --peak 3e-3]
    python -m research.judge.branches FAMILY.yaml ... --others research/results/judge.jsonl

The first trains a model at uniform, then from its end one branch a source, which holds half of
that source, and one at uniform. The second prints how well the loss surface of the search foretells
the swarm of `truth.py` with these branches as evidence, and without.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from research.forked import warm_up
from research.judge import product
from research.judge.branch_runs import SEED, losses_of, mixtures_of, settings_of, trunk_of
from research.judge.product import Family
from research.judge.records import Record, Records
from research.judge.surfaces import Foretold, Judged, judged

RESULTS = Path("research/results/judge_branches.jsonl")


def train(family: Family, records: Records, steps: int, peak: float) -> None:
    """What is missing of the branches."""
    settings = [f"init_from={trunk_of(family)}", *settings_of(steps, peak)]
    for name, mixture in mixtures_of(family).items():
        title = f"branch{steps}.{name}"
        if records.get("train", family.name, title, SEED) is not None:
            continue
        found = product.train(family, mixture.tolist(), SEED, settings, on_targets=True)
        cost = steps / family.config.train.steps
        records.add(
            Record(
                *("train", family.name, title, SEED, mixture.tolist(), found.losses),
                cost=cost,
                seconds=round(found.seconds, 1),
                settings=settings[1:],
            )
        )
        print(family.name, title, found.losses, flush=True)


@dataclass(frozen=True)
class Judgement:
    """Of one family and target, on the swarm."""

    size: float
    """Root mean square of the errors of differences from uniform, in nats."""
    rank: float
    """Spearman's correlation."""
    better: float
    """SD of the errors among the better half of the mixtures, as the surface without branches sees
    them: those that a search may answer with."""
    held: float
    """Share of the losses in their 90% intervals."""


def judgements(found: product.LossSurface, each: Judged) -> Iterator[Judgement]:
    """By target."""
    predicted = found.predict(each.mixtures)
    plain = each.surfaces.with_branches(None).predict(each.mixtures).mean
    for k in range(len(each.targets)):
        seen, mean = each.losses[:, k], predicted.mean[:, k]
        less = Foretold(mean[1:] - mean[0], predicted.deviation[1:, k], seen[1:] - seen[0])
        whole = Foretold(mean[1:], predicted.deviation[1:, k], seen[1:])
        good = plain[1:, k] <= np.median(plain[1:, k])
        better = float(np.std(less.error[good]))
        yield Judgement(size=less.size, rank=less.rank, better=better, held=whole.held)


def table(every: Sequence[Judged], records: Records, lengths: Sequence[int]) -> Iterator[str]:
    """What is foretold with these branches and without, means over families and targets."""
    heads = ["evidence", "pairs", "RMSE", "Spearman", "better half", "in 90%", "by pair"]
    yield f"| {' | '.join(heads)} |"
    yield "|---|---|---|---|---|---|---|"
    kinds: list[tuple[str, int | None, bool]] = [
        ("n-grams", None, False),
        ("n-grams, scores", None, True),
    ]
    for length in lengths:
        kinds.append((f"n-grams, {length} steps", length, False))
        kinds.append((f"n-grams, scores, {length} steps", length, True))
    for title, steps, scores in kinds:
        found: list[Judgement] = []
        for each in every:
            known = None if steps is None else losses_of(each.family, records, steps)
            if known is not None or steps is None:
                found += judgements(each.surfaces.with_branches(known, scores), each)
        if not found:
            continue
        sizes = [f"{one.size:.3f} {one.rank:.2f}" for one in found]
        means = np.mean([astuple(one) for one in found], axis=0)
        cells = [title, str(len(found)), *(f"{mean:.3f}" for mean in means), ", ".join(sizes)]
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", type=Path, nargs="+")
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--steps", type=int, nargs="+", default=[50, 100])
    parser.add_argument("--peak", type=float, default=2e-3, help="learning rate of a branch")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--swarm", type=Path, default=Path("research/results/judge_swarm.jsonl"))
    parser.add_argument("--others", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    families, records = [Family(path) for path in options.families], Records(options.results)
    if options.train:
        for family in families:
            records.belong_to(family.name, family.identity())
        warm_up()
        for steps in options.steps:
            for family in families:
                train(family, records, steps, options.peak)
    swarm = Records(options.swarm, options.others)
    found = [judged(family, swarm, 1) for family in families]
    every = [each for each in found if each is not None]
    print("\n".join(table(every, records, options.steps)))


if __name__ == "__main__":
    main()
