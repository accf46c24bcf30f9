"""Short branches of a trunk: their mixtures, and what is recorded of them (`branches.py`)."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from research.judge import product
from research.judge.product import Family, FloatArray
from research.judge.records import Records

SEED = 7
"""Of every branch: common noise cancels."""
SHARE = 0.5
"""Of the branch's own source, beside uniform."""


def mixtures_of(family: Family) -> dict[str, FloatArray]:
    """[S] by name: uniform, and one for every source."""
    even = np.full(len(family.sources), 1 / len(family.sources))
    own = np.eye(len(even))
    found = {name: (1 - SHARE) * even + SHARE * own[i] for i, name in enumerate(family.sources)}
    return {"uniform": even} | found


def trunk_of(family: Family) -> Path:
    """The run folder of a model trained at uniform, seed 1; trained where it is missing."""
    trunk = family.config_path.parent / "trunks" / family.name
    if not trunk.exists():
        even = mixtures_of(family)["uniform"]
        done = product.train_kept(family, even.tolist(), seed=1, settings=["checkpoint.final=true"])
        trunk.parent.mkdir(exist_ok=True)
        shutil.move(done, trunk)
    return trunk


def settings_of(steps: int, peak: float) -> list[str]:
    """Of a branch, but for where it begins."""
    return [
        f"train.steps={steps}",
        f"train.schedule={{kind: cosine, peak: {peak}, warmup: 5}}",
    ]


def losses_of(family: Family, records: Records, steps: int) -> tuple[FloatArray, FloatArray] | None:
    """[B, S] mixtures of the branches and [B, K] their losses, that at uniform first; None while
    one is missing."""
    runs = [
        records.get("train", family.name, f"branch{steps}.{name}", SEED)
        for name in mixtures_of(family)
    ]
    known = [run for run in runs if run is not None]
    if len(known) < len(runs):
        return None
    losses = np.array([[run.losses[target] for target in family.targets] for run in known])
    return np.array([run.weights for run in known]), losses
