"""The command line of a program that makes cases from a seed and counts the wrong ones."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

Fuzz = Callable[[int, int, Path, int], Sequence[str]]
"""From how many cases, the seed, an empty folder and the first case to what is wrong."""


def run_cases(fuzz: Fuzz, description: str, count: int) -> int:
    """Read the command line and run the cases; returns the exit code.

    Args:
        fuzz: makes and judges them.
        description: the program's own; its first line is shown.
        count: of cases, by default.
    """
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="start with this case")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fastmix-fuzz-") as directory:
        wrong = fuzz(options.count, options.seed, Path(directory), options.first)
    return int(bool(wrong))
