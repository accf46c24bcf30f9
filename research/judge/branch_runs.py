"""Short branches of a trunk: their mixtures, and what is recorded of them (`branches.py`)."""

from __future__ import annotations

import numpy as np

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
