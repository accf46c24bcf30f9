"""One run at a time in a run folder, by the lock `run.lock` in it (see `fastmix_mega.locking`)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from fastmix_mega.errors import UserError
from fastmix_mega.locking import PACE, Pace, Use, hold_lock

FILE = "run.lock"
HELD_VARIABLE = "FASTMIX_RUN_LOCK"
"""Environment variable: the folder whose lock a launcher holds for the processes it starts."""


@contextlib.contextmanager
def run_lock(
    run_dir: str | Path, command: str, pace: Pace = PACE, say: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold a run folder's lock while the block runs. The folder is made if there is none.

    A process that a holder started shares its lock (see `HELD_VARIABLE`).

    Args:
        run_dir: the run folder.
        command: for the message that others get, such as `fastmix search`.
        pace: how fast a holder is known to be alive or not.
        say: gets a line before another machine's lock is watched.

    Raises:
        UserError: if another process holds it; names host, process and start time.
    """
    directory = Path(run_dir).resolve()
    if os.environ.get(HELD_VARIABLE) == str(directory):
        yield
        return
    made = [each for each in (directory, *directory.parents) if not each.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {directory / FILE}: {error.strerror}") from None
    use = Use(command, str(directory), "another run_dir", own_name=True)
    try:
        with hold_lock(directory / FILE, use, pace, say), _shared(directory):
            yield
    finally:
        # Where the run never began; others are not empty.
        with contextlib.suppress(OSError):
            for each in made:
                each.rmdir()


@contextlib.contextmanager
def _shared(directory: Path) -> Iterator[None]:
    """Let processes that start in this block share the folder's lock."""
    before = os.environ.get(HELD_VARIABLE)
    os.environ[HELD_VARIABLE] = str(directory)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(HELD_VARIABLE, None)
        else:
            os.environ[HELD_VARIABLE] = before
