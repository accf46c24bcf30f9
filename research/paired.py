"""Small studies that search and train by the command line, and compare by pairs of equal seeds.

A run is its folder; RUN.yaml beside it is its configuration, RUN.log what it printed. A finished
one is kept, so that a study that is started again goes on.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fastmix_mega.files import read_jsonl

FINISHED = {"search": "mixture.json", "train": "shares.json"}
"""What a run writes last, by verb."""


def run(verb: str, settings: dict[str, Any], folder: Path) -> None:
    """Search or train, on one process, unless it is finished.

    Args:
        verb: `search` or `train`.
        settings: the configuration but for the run folder.
        folder: the run folder.

    Raises:
        CalledProcessError: if it does not end well.
    """
    if (folder / FINISHED[verb]).exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = folder.with_name(f"{folder.name}.yaml")
    config.write_text(yaml.safe_dump({"run_dir": str(folder)} | settings, sort_keys=False))
    command([verb, str(config), "--nproc", "1"], folder.with_name(f"{folder.name}.log"))


def command(words: Sequence[str], log: Path) -> None:
    """`fastmix WORDS`, with what it prints in a file. Raises: CalledProcessError."""
    with log.open("w") as file:
        subprocess.run(
            [sys.executable, "-m", "fastmix_mega", *words],
            stdout=file,
            stderr=subprocess.STDOUT,
            check=True,
        )


def last_losses(folder: Path) -> dict[str, float]:
    """Of the evaluation sets at the end of a finished training, in nats per token."""
    rows = [row["eval"] for row in read_jsonl(folder / "metrics.jsonl") if "eval" in row]
    return dict(rows[-1])


def gap(name: str, ones: Sequence[float], others: Sequence[float]) -> str:
    """The mean of paired differences, `ones` less `others`, in words.

    Args:
        name: what is compared.
        ones: losses by seed.
        others: those of the same seeds.
    """
    gaps = np.array(ones) - np.array(others)
    spread = gaps.std(ddof=1) if len(gaps) > 1 else float("nan")
    return f"{name}: {gaps.mean():+.4f} nats per token (SD {spread:.4f}, {len(gaps)} seeds)"
