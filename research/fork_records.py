"""What the fork test keeps: one file of runs, `research/results/fork_test.jsonl`.

A run begins with a line of its settings and its points; every repetition at a point is a line of
its own, `{run, point, seconds, scores, effects}` with the point's number.
"""

from __future__ import annotations

import copy
from typing import Any

from fastmix_mega.errors import UserError
from research.study_file import StudyFile

Record = dict[str, Any]
"""A run's settings, and `points` with the `repetitions` of each."""

CHANCE = ("run", "training_seconds", "seconds")
"""What may differ where a run goes on."""


def fork_records(file: StudyFile) -> dict[str, Record]:
    """All runs by name, in the order in which they were begun."""
    found: dict[str, Record] = {}
    for row in file.rows():
        name = row.pop("run")
        if "point" not in row:
            for point in row["points"]:
                point["repetitions"] = []
            found[name] = row
            continue
        place, seconds = row.pop("point"), row.pop("seconds", None)
        found[name]["points"][place]["repetitions"].append(row)
        if seconds is not None:
            spent = found[name].get("seconds", found[name]["training_seconds"])
            found[name]["seconds"] = round(spent + seconds, 1)
    return found


class ForkRun:
    """One run's record as it grows.

    Args:
        name: within the file.
        file: None keeps the record in memory alone.
    """

    def __init__(self, name: str = "", file: StudyFile | None = None) -> None:
        self.name = name
        self.record: Record = {}
        self._file = file

    def begin(self, settings: Record) -> None:
        """Go on with the run of this name, or begin it.

        Args:
            settings: the record without repetitions.

        Raises:
            UserError: if the file's run of this name has other settings, or its training came to
                other losses.
        """
        known = None if self._file is None else fork_records(self._file).get(self.name)
        if known is None:
            self.record = copy.deepcopy(settings)
            for point in self.record["points"]:
                point["repetitions"] = []
            if self._file is not None:
                self._file.append({"run": self.name} | settings)
            return
        before = known | {"points": [_without(point, "repetitions") for point in known["points"]]}
        other = [
            key
            for key in sorted(before.keys() | settings.keys())
            if key not in CHANCE and before.get(key) != settings.get(key)
        ]
        if other:
            assert self._file is not None
            raise UserError(
                f"{self._file.path} has a run {self.name} that differs in {', '.join(other)}; give "
                "this one another --name"
            )
        self.record = known

    def has(self, place: int, number: int) -> bool:
        """Whether a point's repetition is there; numbers count from 0."""
        return number < len(self.record["points"][place]["repetitions"])

    def add(self, place: int, repetition: Record, seconds: float) -> None:
        """Keep a point's next repetition."""
        if self._file is not None:
            row = {"run": self.name, "point": place, "seconds": round(seconds, 1)}
            self._file.append(row | repetition)
        self.record["points"][place]["repetitions"].append(repetition)


def _without(row: Record, key: str) -> Record:
    return {name: value for name, value in row.items() if name != key}
