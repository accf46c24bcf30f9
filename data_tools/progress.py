"""One line that says how far a long job is: MB/s, tokens/s, time left, bad lines."""

from __future__ import annotations

import sys
import time


class Progress:
    """Writes to standard error: a line that renews itself on a terminal, else one every 30 seconds.

    Args:
        total: bytes of input in all.
        quiet: say nothing.
    """

    def __init__(self, total: int, quiet: bool = False) -> None:
        self.total, self.quiet = total, quiet
        self.read = self.tokens = self.bad = 0
        self._skipped = 0
        self._begin = self._last = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def skip(self, size: int) -> None:
        """Bytes that an earlier run has done."""
        self._skipped += size
        self.read += size

    def add(self, size: int = 0, tokens: int = 0, bad: int = 0) -> None:
        self.read += size
        self.tokens += tokens
        self.bad += bad
        now = time.monotonic()
        if not self.quiet and now - self._last >= (0.5 if self._terminal else 30):
            self._last = now
            end = "\r" if self._terminal else "\n"
            print(f"{self.line():<79}", end=end, file=sys.stderr, flush=True)

    def line(self) -> str:
        seconds = max(time.monotonic() - self._begin, 1e-9)
        rate = (self.read - self._skipped) / seconds
        left = (self.total - self.read) / rate if rate else float("inf")
        share = self.read / self.total if self.total else 1.0
        return (
            f"{share:6.1%}  {rate / 1e6:.1f} MB/s  {self.tokens / seconds:,.0f} tokens/s  "
            f"{_duration(left)} left  {self.bad:,} bad"
        )

    def close(self) -> None:
        if not self.quiet and self._terminal:
            print(f"{'':<79}", end="\r", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{whole % 60:02}s"
