"""Where a process is in its run, for the launcher that finds it dead, and what happened before.

The launcher names a folder by an environment variable; every process keeps a small file in it.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PLACES_VARIABLE = "FASTMIX_PLACES"
"""Environment variable: the launcher's folder for these files."""
RESTARTS_VARIABLE = "FASTMIX_RESTARTS"
"""Environment variable: as JSON, lines of events.jsonl about the restarts that were made."""
RESTARTED = "restarted"
"""Their kind."""


@dataclass(frozen=True)
class RunPlace:
    """Where in which run."""

    run_dir: str
    step: int
    """Training steps done."""
    phase: str
    """What came next; empty before the first step."""

    def __str__(self) -> str:
        return f"after step {self.step}, in {self.phase}" if self.phase else "at its start"


class PlaceFile:
    """This process's file. Without a launcher of ours nothing is written.

    Args:
        run_dir: of the run.
    """

    def __init__(self, run_dir: str) -> None:
        self._run_dir = run_dir
        folder = os.environ.get(PLACES_VARIABLE)
        self._file: int | None = None
        """A descriptor for as long as the process lives."""
        self._length = 0
        if folder:
            path = Path(folder) / os.environ["RANK"]
            with suppress(OSError):
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def write(self, step: int, phase: str) -> None:
        """Say that `phase` comes next, after `step` training steps."""
        if self._file is None:
            return
        place = json.dumps({"run_dir": self._run_dir, "step": step, "phase": phase})
        # One call, over what was there: a process may be killed at any moment.
        text = place.encode().ljust(self._length)
        self._length = len(text)
        # A full disk says nothing of where the run is, and must not end it.
        with suppress(OSError):
            os.pwrite(self._file, text, 0)


def read_place(folder: Path, rank: int, run_dir: str) -> RunPlace:
    """Where a process was; at the start of the run in `run_dir` if it has not told."""
    try:
        return RunPlace(**json.loads((folder / str(rank)).read_text()))
    except (OSError, ValueError, TypeError):
        return RunPlace(run_dir, 0, "")


def restarts_of(run_dir: str, step: int) -> list[dict[str, Any]]:
    """Lines of events.jsonl for the restarts so far of the run in `run_dir`.

    Args:
        run_dir: of the run.
        step: at which this start goes on, for a launcher that does not know where the run was.
    """
    told = os.environ.get(RESTARTS_VARIABLE)
    if told is not None:
        rows = [row for row in json.loads(told) if row.get("run_dir") == run_dir]
        return [{"step": step} | row for row in rows]
    count = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if not count:
        return []
    run_id = os.environ.get("TORCHELASTIC_RUN_ID", "")
    return [{"step": step, "kind": RESTARTED, "id": f"{run_id} {count}"}]
