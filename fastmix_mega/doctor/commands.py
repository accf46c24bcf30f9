"""Run a command of ours with a time limit, and read its words as they come."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass
class Outcome:
    code: int
    """124 where the time was over."""
    seconds: float
    lines: list[tuple[float, str]] = field(default_factory=list)
    """(time.time() when it came, line)."""

    @property
    def log(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def seen(self, words: str) -> float | None:
        """When a line with these words came; None if none did."""
        return next((when for when, line in self.lines if words in line), None)

    @property
    def end(self) -> str:
        """The last lines, for a report."""
        return self.log[-4000:]


FASTMIX = (sys.executable, "-m", "fastmix_mega")


def run(
    arguments: Sequence[str], limit: float, program: Sequence[str] = FASTMIX, **variables: str
) -> Outcome:
    """A command in a process group of its own, which is killed after `limit` seconds.

    Args:
        arguments: of the command.
        limit: seconds.
        program: the command; `fastmix` by default.
        variables: of its environment.
    """
    kept = {name: text for name, text in os.environ.items() if name not in LAUNCHED}
    begun = time.monotonic()
    process = subprocess.Popen(
        [*program, *arguments],
        env=kept | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    over = threading.Event()

    def end() -> None:
        over.set()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(limit, end)
    timer.start()
    lines = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append((time.time(), line.rstrip("\n")))
        code = process.wait()
    finally:
        timer.cancel()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return Outcome(124 if over.is_set() else code, time.monotonic() - begun, lines)
