"""Processes that work on numbered units; one that dies is an error at once, not a hang.

A fresh interpreter per worker (spawn): no threads or locks are inherited half-way. The caller's
process hands out one unit at a time, so that what is finished is always a set of whole units.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar, cast

from data_tools.commands import ToolError
from fastmix_mega.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")
Report = Callable[[int], None]
"""Tells how many bytes of input were read since the last call."""


def run_units(
    make_work: Callable[[Job], Callable[[int, Report], Result]],
    job: Job,
    units: Sequence[int],
    workers: int,
    progress: Report,
) -> Iterator[Result]:
    """Yield the result of every unit, in the order in which they finish.

    Args:
        make_work: called once in every process with `job`; returns the function of a unit.
        job: plain data.
        units: in the order in which they are begun.
        workers: processes; with 1 the work is done here.
        progress: called with the bytes that workers report.

    Raises:
        UserError, OSError: as the work raised them.
        ToolError: if a worker dies, or fails in another way.
    """
    if workers == 1 or len(units) <= 1:
        work = make_work(job)
        for unit in units:
            yield work(unit, progress)
        return
    yield from _Pool(make_work, job, units).results(min(workers, len(units)), progress)


class _Pool:
    """Processes that each work on one unit at a time."""

    def __init__(self, make_work: Any, job: Any, units: Sequence[int]) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._make_work, self._job = make_work, job
        self._left = list(reversed(units))
        self._processes: dict[Any, tuple[Any, int]] = {}

    def results(self, workers: int, progress: Report) -> Iterator[Any]:
        """Start the processes, yield what they make, and end them."""
        try:
            for _ in range(workers):
                self._start()
            while self._processes:
                # A pipe also becomes ready when the process at its other end has ended.
                for ready in wait(list(self._processes)):
                    ours = cast(Connection, ready)
                    kind, content = self._receive(ours)
                    if kind == "progress":
                        progress(content)
                    else:
                        yield content
                        self._hand_out(ours)
        finally:
            for ours, (process, _) in self._processes.items():
                process.terminate()
                process.join()
                ours.close()

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(theirs, self._make_work, self._job, os.getpid()), daemon=True
        )
        process.start()
        theirs.close()
        self._processes[ours] = (process, self._left.pop())
        ours.send(self._processes[ours][1])

    def _receive(self, ours: Connection) -> tuple[str, Any]:
        """What a process says; an error of its work is raised."""
        process, unit = self._processes[ours]
        try:
            kind, content = ours.recv()
        except (EOFError, OSError):
            process.join()
            raise ToolError(_how_it_ended(process, unit)) from None
        if kind == "error":
            raise content
        if kind == "failure":
            raise ToolError(f"a worker failed at unit {unit}:\n{content}")
        return kind, content

    def _hand_out(self, ours: Connection) -> None:
        """Give a process that is done the next unit, or let it end."""
        process, _ = self._processes[ours]
        if self._left:
            self._processes[ours] = (process, self._left.pop())
            ours.send(self._processes[ours][1])
        else:
            ours.close()
            del self._processes[ours]
            process.join()


def _how_it_ended(process: Any, unit: int) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            code = signal.Signals(-code).name
        hint = "; SIGKILL often means that memory ran out: use fewer --workers"
    else:
        hint = ""
    return (
        f"worker process {process.pid} died ({code}) at unit {unit}{hint if code else ''}. What is "
        "finished is kept: run the same command again"
    )


def _serve(
    pipe: Any, make_work: Callable[[Any], Callable[[int, Report], Any]], job: Any, parent: int
) -> None:
    # Ctrl-C reaches every process of the terminal; the parent ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def report(size: int) -> None:
        # A killed parent must not leave workers behind.
        if os.getppid() != parent:
            raise SystemExit(1)
        pipe.send(("progress", size))

    try:
        work = make_work(job)
        while True:
            pipe.send(("done", work(pipe.recv(), report)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except (UserError, OSError) as error:
        with contextlib.suppress(OSError):
            pipe.send(("error", error))
    except Exception:
        with contextlib.suppress(OSError):
            pipe.send(("failure", traceback.format_exc()))
