"""What watches a run beside its training: guards, each behind the same small interface."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastmix_mega.data.sampler import Draw
from fastmix_mega.parallel.layout import Layout
from fastmix_mega.resumable import Resumable
from fastmix_mega.training.clock import StepClock, StepTimes
from fastmix_mega.training.guards.mixture import MixtureGuard, describe_mixture_event
from fastmix_mega.training.guards.nonfinite import NonFiniteGuard
from fastmix_mega.training.guards.spikes import LossSpikes, describe_spike
from fastmix_mega.training.guards.stragglers import Stragglers, describe_straggler
from fastmix_mega.training.guards.watchdog import Watchdog
from fastmix_mega.training.place import PlaceFile
from fastmix_mega.training.telemetry import RunLog


@dataclass(frozen=True)
class StepReport:
    """One training step, as this process saw it."""

    step: int
    """From 0."""
    applied: bool
    """False, on every process alike, if the gradient was not finite and the update was skipped."""
    draw: Draw
    """The global batch."""
    rows: Sequence[NDArray[np.int64]]
    """This process's rows of it, by micro-batch; empty where another process reports them."""
    losses: Sequence[Tensor]
    """Of these rows, [b] per micro-batch."""


class Callback(Resumable):
    """Every process calls every hook at the same step, so that a hook may be collective.

    A callback's state is part of the checkpoint.
    """

    name: ClassVar[str]
    """Of its state in a checkpoint: it stays, whatever the class is called."""
    log: RunLog | None = None
    """On rank 0, from the start of the run."""

    def on_phase(self, step: int, name: str) -> None:
        """After `step` training steps, `name` comes next."""

    def after_step(self, report: StepReport) -> None:
        """A training step is done."""

    def after_outer_step(self, row: dict[str, Any]) -> None:
        """Rank 0 alone: a line of history.jsonl is written."""

    def before_log(self) -> dict[str, Any]:
        """A line of metrics.jsonl comes next; returns fields for it, which rank 0 writes."""
        return {}

    def after_log(self, values: dict[str, Any]) -> None:
        """Rank 0 alone: a line of metrics.jsonl is written."""

    def failure(self) -> str | None:
        """Why the run must end now, after a checkpoint; the same on every process."""
        return None


class HangWatch(Callback):
    """Tells the watchdog where the run is.

    Args:
        watchdog: of this process.
    """

    name = "HangWatch"

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog

    def on_phase(self, step: int, name: str) -> None:
        self._watchdog.phase(step, name)


class PlaceMark(Callback):
    """Tells the launcher where this process is.

    Args:
        file: of this process.
    """

    name = "PlaceMark"

    def __init__(self, file: PlaceFile) -> None:
        self._file = file

    def on_phase(self, step: int, name: str) -> None:
        self._file.write(step, name)


class SkippedSteps(Callback):
    """Reports steps whose gradient is not finite, and ends a run that has too many.

    Args:
        guard: counts them.
    """

    name = "SkippedSteps"
    resumes = ("_guard",)

    def __init__(self, guard: NonFiniteGuard) -> None:
        self._guard = guard

    def after_step(self, report: StepReport) -> None:
        if report.applied:
            return
        event = self._guard.report(report.step, report.draw, report.rows, report.losses)
        if self.log is not None:
            self.log.event(event, self._guard.describe(event))

    def failure(self) -> str | None:
        if not self._guard.too_many:
            return None
        return (
            f"{self._guard.count} steps had a gradient that is not finite. events.jsonl in the "
            "run folder names the sequences. Lower train.schedule.peak or mend the sources; then "
            "start again, or raise guards.max_skipped to go on"
        )


class StragglerWatch(Callback):
    """Logs how long every rank works and waits, and warns of one that is slow for long.

    Args:
        clock: of this process.
        layout: this process's place.
    """

    name = "StragglerWatch"

    def __init__(self, clock: StepClock, layout: Layout) -> None:
        self._clock = clock
        self._layout = layout
        places = layout.gather((layout.pipeline.rank, socket.gethostname()))
        self._stragglers = Stragglers(*zip(*places, strict=True))
        self._times: list[StepTimes] = []

    def before_log(self) -> dict[str, Any]:
        own = self._clock.take()
        numbers = torch.tensor([own.step, own.data, own.forward, own.wait], dtype=torch.float64)
        self._times = [StepTimes(*each.tolist()) for each in self._layout.gather_host(numbers)]
        names = ("step", "data", "forward", "wait")
        ranks = {
            f"{name}_seconds": [_rounded(getattr(each, name)) for each in self._times]
            for name in names
        }
        return {"ranks": ranks}

    def after_log(self, values: dict[str, Any]) -> None:
        for event in self._stragglers.check(values["step"], self._times, time.monotonic()):
            if self.log is not None:
                self.log.event(event, describe_straggler(event))


def _rounded(seconds: float) -> float | None:
    return None if math.isnan(seconds) else float(f"{seconds:.4g}")


class SpikeWatch(Callback):
    """Logs a warning when the loss spikes.

    Args:
        spikes: finds them.
    """

    name = "SpikeWatch"
    resumes = ("_spikes",)

    def __init__(self, spikes: LossSpikes) -> None:
        self._spikes = spikes

    def after_log(self, values: dict[str, Any]) -> None:
        spike = self._spikes.check(values["step"], values["loss"], values["source_loss"])
        if spike is not None and self.log is not None:
            self.log.event(spike, describe_spike(spike))


class MixtureWatch(Callback):
    """Logs a warning when the mixture collapses, or follows noise.

    Args:
        guard: sees it.
    """

    name = "MixtureWatch"
    resumes = ("_guard",)

    def __init__(self, guard: MixtureGuard) -> None:
        self._guard = guard

    def after_outer_step(self, row: dict[str, Any]) -> None:
        for event in self._guard.check(row):
            if self.log is not None:
                self.log.event(event, describe_mixture_event(event))
