"""Stopping on request: signals and stop files, noticed by any process, obeyed by all of them.

A first SIGTERM, SIGINT or SIGUSR1, or a file named `stop` in the run folder, asks the run to stop
at the next step boundary with a checkpoint. A second signal stops the process at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

EXIT_STOPPED = 75
"""Exit code of a run that stopped as asked and can be resumed (EX_TEMPFAIL of sysexits.h)."""

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
STOP_FILE_VARIABLE = "FASTMIX_STOP_FILE"
"""Environment variable: a stop file of the launcher's, private to one start."""

_SAME_SIGNAL_SECONDS = 1.0
"""One Ctrl-C or one scancel can arrive twice, from the terminal and from a launcher."""


class StopRequest:
    """What this process knows of a wish to stop.

    Args:
        run_dir: where a file named `stop` counts.
    """

    def __init__(self, run_dir: str) -> None:
        self._public = Path(run_dir) / "stop"
        self._files = [self._public]
        if os.environ.get(STOP_FILE_VARIABLE):
            self._files.append(Path(os.environ[STOP_FILE_VARIABLE]))
        self._reason = ""
        self._first = 0.0

    @property
    def wanted(self) -> bool:
        return bool(self.reason)

    @property
    def reason(self) -> str:
        """Who asked, in words; empty if nobody did."""
        if not self._reason:
            for path in self._files:
                if path.exists():
                    self._reason = "the stop file" if path == self._public else "a signal"
        return self._reason

    def obeyed(self) -> None:
        """Remove the run folder's stop file, so that the next start goes on."""
        with contextlib.suppress(OSError):
            self._public.unlink()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals while the block runs."""
        before = {each: signal.signal(each, self._handle) for each in SIGNALS}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        now = time.monotonic()
        if not self._reason:
            self._reason, self._first = signal.Signals(number).name, now
        elif now - self._first > _SAME_SIGNAL_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def die_with_parent() -> None:
    """Be killed when the launcher that started this process is gone, however it went (Linux)."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
    ctypes.CDLL(None).prctl(set_parent_death_signal, int(signal.SIGKILL), 0, 0, 0)
    if parent == 1 and os.environ.get("TORCHELASTIC_RUN_ID"):
        raise SystemExit("the launcher ended before this process had started")
