"""The command line of a campaign: it hurts runs that are forked from this warm process."""

from __future__ import annotations

import argparse
import os
import pickle
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from tests import ranks

Result = TypeVar("Result")


@dataclass(frozen=True)
class Range:
    """Which cases are done: number N of a seed is the same in every campaign."""

    count: int
    seed: int
    first: int
    only: list[str]
    """Cases whose text holds none of these are left out; empty for all."""
    jobs: int
    """Processes that do cases at the same time."""

    def has(self, case: object) -> bool:
        """Whether a case, as it is shown, is wanted."""
        return not self.only or any(text in str(case) for text in self.only)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.first + self.count))


def in_forks(jobs: int, parts: Sequence[str], work: Callable[[str], Result]) -> list[Result]:
    """What `work` makes of every part, each in a fork of this process.

    Args:
        jobs: forks at the same time.
        parts: of the work.
        work: its result must be one that pickle takes. RuntimeError if it raises something.
    """
    left, ends, results = list(parts), dict[int, BinaryIO](), []
    while left or ends:
        while left and len(ends) < jobs:
            here, there = os.pipe()
            if not (pid := os.fork()):
                _work_and_tell(work, left[0], there)
            os.close(there)
            ends[pid] = os.fdopen(here, "rb")
            del left[0]
        pid, status = os.wait()
        with ends.pop(pid) as told:
            if status:
                raise RuntimeError("a part of the campaign failed (see above)")
            results.append(pickle.load(told))
    return results


def _work_and_tell(work: Callable[[str], Any], part: str, end: int) -> None:
    code = 1
    try:
        with os.fdopen(end, "wb") as answer:
            pickle.dump(work(part), answer)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def run_campaign(
    campaign: Callable[[Range, Path], int],
    description: str,
    what: str,
    count: int,
    warm_up: Callable[[], None] = ranks.warm_up,
) -> int:
    """Read the command line, warm up and run a campaign; returns the exit code.

    Args:
        campaign: does the cases in an empty folder; returns how many were wrong. The folder stays
            if any was.
        description: the program's own; its first line is shown.
        what: the cases are called, in the plural.
        count: of cases, by default.
        warm_up: imports what the forks need.
    """
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    parser.add_argument(f"--{what}", dest="count", type=int, default=count)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="start with this case")
    parser.add_argument(
        "--only",
        default=[],
        action="append",
        metavar="TEXT",
        help="cases whose line holds this; again for more",
    )
    parser.add_argument("--jobs", type=int, default=1, help="cases done at the same time")
    chosen = Range(**vars(parser.parse_args()))
    warm_up()
    directory = Path(tempfile.mkdtemp(prefix="fastmix-campaign-"))
    wrong = campaign(chosen, directory)
    if not wrong:
        shutil.rmtree(directory)
    return int(wrong > 0)
