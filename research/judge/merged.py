"""Do merged branches of a trunk tell what mixtures are worth?

    python -m research.judge.merged FAMILY.yaml ... [--steps 50] [--others FILE ...]

From the end of a model trained at uniform, one short branch a source, which holds half of that
source, and one at uniform, with the same seed (`branches.py`). The weights of a merged model are
u + factor * sum_i x_i (w_i - u), of the branch at uniform u and those of the sources w_i: its loss
stands for that of a training on the mixture x (DeMix, arXiv 2602.00747). The table says how well
that foretells the swarm of `truth.py`, by itself and as evidence of the search's loss surface.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from research.forked import warm_up
from research.judge import product
from research.judge.branch_runs import SEED, mixtures_of, settings_of, trunk_of
from research.judge.product import Family, FloatArray
from research.judge.records import Records
from research.judge.surfaces import Judged, judged

FACTORS = (1.0, 2.0)


def branches_of(family: Family, steps: int, peak: float) -> dict[str, Path]:
    """Run folders by name; trained where they are missing."""
    base = family.config_path.parent
    settings = [f"init_from={trunk_of(family)}", *settings_of(steps, peak)]
    found = {}
    for name, mixture in mixtures_of(family).items():
        found[name] = folder = base / "branches" / f"{family.name}_{steps}" / name
        if folder.exists():
            continue
        kept = [*settings, "checkpoint.final=true"]
        done = product.train_kept(family, mixture.tolist(), SEED, kept)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(done, folder)
    return found


def merged_losses(
    family: Family, branches: dict[str, Path], mixtures: FloatArray, cache: Path
) -> dict[float, FloatArray]:
    """[N, K] by factor: losses of the merged models at mixtures [N, S], on the search's text."""
    if cache.exists():
        kept = np.load(cache)
        if np.array_equal(kept["mixtures"], mixtures):
            return {factor: kept[f"f{factor:g}"] for factor in FACTORS}
    with product.Merger(family, branches) as merger:
        found = {
            factor: np.array([merger.losses(factor * mixture) for mixture in mixtures])
            for factor in FACTORS
        }
    cache.parent.mkdir(exist_ok=True)
    by_name = {f"f{factor:g}": losses for factor, losses in found.items()}
    np.savez(cache, allow_pickle=False, mixtures=mixtures, **by_name)
    return found


def rows(each: Judged, merged: dict[float, FloatArray], steps: int) -> Iterator[str]:
    """A line for every target."""
    alone = each.surfaces.fitted(product.SurfaceConstants())
    predicted = alone.predict(each.mixtures).mean
    for number, target in enumerate(each.targets):
        seen = _less(each.losses[:, number])
        own = _less(predicted[:, number])
        cells = [f"{each.family.name}: {target}", str(steps)]
        cells.append(f"{_rank(own, seen)}, {_size(own - seen):.3f}")
        for losses in merged.values():
            told = _less(losses[:, number])
            scale = float(told @ seen / (told @ told))
            cells.append(f"{_rank(told, seen)}, {_size(scale * told - seen):.3f} ({scale:.1f})")
        for losses in merged.values():
            found = each.surfaces.with_branches((each.mixtures, losses))
            both = _less(found.predict(each.mixtures).mean[:, number])
            cells.append(f"{_rank(both, seen)}, {_size(both - seen):.3f}")
        yield "| " + " | ".join(cells) + " |"


def _less(losses: FloatArray) -> FloatArray:
    return losses[1:] - losses[0]


def _rank(told: FloatArray, seen: FloatArray) -> str:
    return f"{spearmanr(told, seen).statistic:.2f}"


def _size(errors: FloatArray) -> float:
    return float(np.sqrt(np.mean(errors**2)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--peak", type=float, default=2e-3, help="learning rate of a branch")
    parser.add_argument("--swarm", type=Path, default=Path("research/results/judge_swarm.jsonl"))
    parser.add_argument("--others", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    warm_up()
    swarm = Records(options.swarm, options.others)
    families = [Family(path) for path in options.families]
    # Before any process group: trainings are forks of this process.
    every = [branches_of(family, options.steps, options.peak) for family in families]
    for path, family, branches in zip(options.families, families, every, strict=True):
        each = judged(family, swarm, 1)
        assert each is not None
        cache = path.parent / "merged" / f"{family.name}_{options.steps}.npz"
        merged = merged_losses(family, branches, each.mixtures, cache)
        print("\n".join(rows(each, merged, options.steps)), flush=True)


if __name__ == "__main__":
    main()
