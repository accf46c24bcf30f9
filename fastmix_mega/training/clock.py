"""How long a process works, reads data, and waits for others, in its training steps.

Nothing here makes the host wait for a GPU: passes are timed by events, which are read later, when
the loss of a log line has been waited for anyhow.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

SCHEDULE = Path("/proc/thread-self/schedstat")
"""Nanoseconds in which the thread has run, and in which it has waited for a core (Linux)."""
TIMED_STEPS = 8
"""After each log line, of a GPU's forward passes: each takes two events."""


@dataclass(frozen=True)
class StepTimes:
    """Seconds of a training step, on average."""

    step: float
    """All of it: reading, forward, backward, optimizer."""
    data: float
    """Reading the sequences."""
    forward: float
    """The model's forward passes. Only collectives within a layer or a sequence are in it."""
    wait: float
    """In which the process sleeps, after reading: it waits for the others. Not a number where that
    is not known, as on a GPU."""


class StepClock:
    """Times the training steps of this process.

    Args:
        device: of the run.
        chunks: this process's parts of the model.
    """

    def __init__(self, device: torch.device, chunks: Sequence[nn.Module]) -> None:
        self._on_gpu = device.type == "cuda"
        self._in_step = False
        self._events: list[tuple[Any, Any]] = []
        self._clear()
        for chunk in chunks:
            chunk.register_forward_pre_hook(self._begin_forward)
            chunk.register_forward_hook(self._end_forward)

    def _clear(self) -> None:
        self._steps = 0
        self._step = self._data = self._forward = self._wait = 0.0
        self._events.clear()

    @contextmanager
    def step(self) -> Iterator[None]:
        """A training step; it is not counted if it ends with an error."""
        started, self._in_step = time.perf_counter(), True
        self._asleep = _seconds_asleep()
        try:
            yield
        finally:
            self._in_step = False
        self._step += time.perf_counter() - started
        self._wait += _seconds_asleep() - self._asleep
        self._steps += 1

    @contextmanager
    def data(self) -> Iterator[None]:
        """Within a step, before anything else: its sequences are read."""
        started = time.perf_counter()
        yield
        self._data += time.perf_counter() - started
        self._asleep = _seconds_asleep()

    def take(self) -> StepTimes:
        """Of the steps since the last call, of which there is one at least."""
        steps = max(1, self._steps)
        forward = self._forward / steps
        if self._on_gpu:
            done = [(begin, end) for begin, end in self._events if end.query()]
            timed = min(steps, TIMED_STEPS) * len(done) / max(1, len(self._events))
            seconds = sum(begin.elapsed_time(end) for begin, end in done) / 1000
            forward = seconds / timed if timed else float("nan")
        wait = float("nan") if self._on_gpu else self._wait / steps
        found = StepTimes(
            step=self._step / steps, data=self._data / steps, forward=forward, wait=wait
        )
        self._clear()
        return found

    def _begin_forward(self, *_: Any) -> None:
        if not self._in_step:
            return
        if not self._on_gpu:
            self._forward_started = time.perf_counter()
        elif self._steps < TIMED_STEPS:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            self._events.append((begin, end))

    def _end_forward(self, *_: Any) -> None:
        if not self._in_step:
            return
        if not self._on_gpu:
            self._forward += time.perf_counter() - self._forward_started
        elif self._steps < TIMED_STEPS:
            self._events[-1][1].record()


def _seconds_asleep() -> float:
    """Up to now, of this thread: it neither ran nor wanted a core. Not a number if unknown."""
    try:
        ran, waited, *_ = SCHEDULE.read_bytes().split()
    except (OSError, ValueError):
        return float("nan")
    return time.monotonic() - (int(ran) + int(waited)) / 1e9
