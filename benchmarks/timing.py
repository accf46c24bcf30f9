"""What the speed benchmarks share: measurements in turn, their ratios, one way to tell them.

A machine that others use drifts and stutters. So the ways that are compared run in turn, neighbours
are divided, and the median of the ratios is told with its quartiles: of wall time, and of processor
time, which other programs disturb far less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Span:
    """Seconds that one action took."""

    wall: float
    cpu: float
    """Of all threads of this process."""


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of some ratios."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) < 2:
            return cls(values[0], values[0], values[0], len(values))
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, len(values))

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Row:
    """One line of the page that `make bench` writes."""

    goal: int
    what: str
    wanted: str
    measured: str
    met: bool | None = None
    """None where a figure is only told."""


def one_thread() -> None:
    """One thread in this process and in those that it starts; call it before anything is measured.

    The variable alone comes too late where torch has been imported.
    """
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def timed(action: Callable[[], object]) -> Span:
    """What this process spent on the action; or what the action says that another one did."""
    wall, cpu = time.perf_counter(), time.process_time()
    told = action()
    if isinstance(told, Span):
        return told
    return Span(time.perf_counter() - wall, time.process_time() - cpu)


def alternate(
    actions: Sequence[Callable[[], object]], rounds: int, budget: float, warm_up: int = 1
) -> list[list[Span]]:
    """Run the actions in turn.

    Args:
        actions: to compare.
        rounds: at most so many count.
        budget: seconds after which no new round begins (at least one counts).
        warm_up: rounds before those, not counted.

    Returns:
        Per action its spans, round by round. Every other round runs in the opposite order.
    """
    spans: list[list[Span]] = [[] for _ in actions]
    end = time.perf_counter() + budget
    for number in range(-warm_up, rounds):
        if number > 0 and time.perf_counter() > end:
            break
        order = range(len(actions)) if number % 2 == 0 else reversed(range(len(actions)))
        for position in order:
            span = timed(actions[position])
            if number >= 0:
                spans[position].append(span)
    return spans


def ratios(over: Sequence[Span], under: Sequence[Span]) -> tuple[Spread, Spread]:
    """(processor time, wall time) of `over` for that of `under`, neighbour by neighbour."""
    pairs = list(zip(over, under, strict=True))
    return (
        Spread.of([first.cpu / second.cpu for first, second in pairs]),
        Spread.of([first.wall / second.wall for first, second in pairs]),
    )


def ratio_row(
    goal: int, what: str, most: float, over: Sequence[Span], under: Sequence[Span]
) -> Row:
    """A row for a ratio that should be at most `most`; processor time decides."""
    cpu, wall = ratios(over, under)
    measured = f"{cpu} of processor time, {wall} of wall time, {cpu.count} pairs"
    return Row(goal, what, f"at most {most:g}", measured, cpu.median <= most)


def tell(rows: Sequence[Row], as_json: bool) -> None:
    """Print the rows: a line of JSON each for `benchmarks.speed`, or words."""
    for row in rows:
        if as_json:
            print(json.dumps(asdict(row)), flush=True)
        else:
            verdict = {True: "met", False: "missed", None: "told"}[row.met]
            told = f"goal {row.goal}, {row.what}: {row.measured}; {row.wanted} ({verdict})"
            print(told, flush=True)


def parser(description: str | None, budget: float) -> argparse.ArgumentParser:
    """With the options of every speed benchmark: --budget SECONDS and --json."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--budget", type=float, default=budget, help=f"seconds, about ({budget:g})")
    made.add_argument("--json", action="store_true", help="rows as JSON, for benchmarks.speed")
    return made
