"""Where the runs of several seeds lie: `seed_N` inside one folder, which holds their pool."""

from __future__ import annotations

import re
from pathlib import Path

from fastmix_mega.errors import UserError

_NAME = re.compile(r"seed[_-](\d+)")
"""Sweeps of earlier versions wrote `seed-N`."""


def seed_folder(parent: str | Path, seed: int) -> Path:
    """The run folder of one seed: `seed_N`, or an existing `seed-N` of an earlier version."""
    folder, earlier = Path(parent) / f"seed_{seed}", Path(parent) / f"seed-{seed}"
    return earlier if earlier.is_dir() and not folder.exists() else folder


def seed_folders(parent: str | Path) -> list[Path]:
    """The seeds' run folders that have begun, in the order of the seeds."""
    found = []
    for path in Path(parent).glob("seed[_-]*"):
        name = _NAME.fullmatch(path.name)
        if name and (path / "run.json").is_file():
            found.append((int(name[1]), path))
    return [path for _, path in sorted(found)]


def finished_seeds(parent: str | Path) -> list[Path]:
    """The seeds' run folders that hold a mixture.

    Raises:
        UserError: if they are fewer than two, which cannot be pooled.
    """
    begun = seed_folders(parent)
    finished = [path for path in begun if (path / "mixture.json").is_file()]
    if len(finished) < 2:
        raise UserError(
            f"{parent}: {len(finished)} of {len(begun)} seeds have finished; at least two are "
            "needed for one answer. Give a seed's own folder, or wait"
        )
    return finished


def require_a_parent(folder: str | Path) -> None:
    """Raises: UserError if a folder for several seeds holds a run of its own."""
    for name in ("run.json", "checkpoints"):
        if (Path(folder) / name).exists():
            raise UserError(
                f"run_dir: {folder} holds a run of its own ({name}), which the seeds' pooled "
                "mixture and report would overwrite; name another run_dir"
            )
