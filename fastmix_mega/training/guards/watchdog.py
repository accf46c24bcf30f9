"""A hung run ends with the name of the rank that is stuck, and its stack.

A collective that one process never enters keeps all others waiting. A thread in each process sees
whether its training goes on, and publishes that in torch's TCPStore. When nothing has moved for
too long, the processes compare where they are; one of them tells, and all end with exit code 1.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import sys
import threading
import time
import traceback
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from fastmix_mega.files import append_jsonl
from fastmix_mega.parallel.attempts import keys_of_attempt, record_failure
from fastmix_mega.training.guards.suspects import Place, describe_hang, find_suspects

COMMUNICATION = (
    "/torch/distributed/",
    # A process that waits for its GPU waits for a collective on it, in most cases.
    "/torch/cuda/",
    "/deepspeed/",
    "/megatron/core/pipeline_parallel/",
    "/megatron/core/tensor_parallel/",
)
"""A process whose innermost Python frame is in one of these waits for others."""

GRACE = 4
"""Intervals in which the processes hear of each other before one is blamed."""


@dataclass(frozen=True)
class Member:
    """This process among those of the run."""

    rank: int
    world_size: int
    lockstep: bool
    """Whether all processes do the same micro-batches at the same time: no pipeline."""


class Watchdog:
    """`with Watchdog(...) as dog:`, then `dog.phase(...)` and `dog.beat()` while training goes on.

    Args:
        member: this process.
        limit: seconds without a beat; 0 watches nothing, nor does a run of one process.
        run_dir: where events.jsonl is.
        address: host and port of the run's TCPStore.
    """

    def __init__(
        self, member: Member, limit: float, run_dir: str, address: tuple[str, int] | None = None
    ) -> None:
        self._member = member
        self._limit = limit if member.world_size > 1 else 0.0
        self._interval = min(5.0, limit / 4)
        self._events = Path(run_dir) / "events.jsonl"
        self._address = address
        self._main = threading.main_thread().ident
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._step, self._phase, self._beats, self._ticks = 0, "the start", 0, 0

    def phase(self, step: int, name: str) -> None:
        """Say what is done next, after `step` training steps."""
        self._step, self._phase = step, name
        self.beat()

    def beat(self, *_: Any) -> None:
        """Say that training goes on (a hook of torch's may call it with anything)."""
        self._beats += 1

    def __enter__(self) -> Watchdog:
        if self._limit:
            host, port = self._address or (
                os.environ["MASTER_ADDR"],
                int(os.environ["MASTER_PORT"]),
            )
            # A connection of its own: the main thread may be blocked inside the default one.
            store = TCPStore(host, port, is_master=False, timeout=timedelta(seconds=30))
            self._store = PrefixStore(keys_of_attempt("fastmix-watchdog"), store)
            self._publish()
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        quiet, beats, before = 0.0, self._beats, time.monotonic()
        while not self._ended.wait(self._interval):
            now = time.monotonic()
            # A job that was suspended as a whole must not look hung when it goes on.
            elapsed, before = min(now - before, 2 * self._interval), now
            quiet = quiet + elapsed if self._beats == beats else 0.0
            beats = self._beats
            self._publish()
            if quiet >= self._limit and self._is_hung(beats):
                # Ordinary ways to end would wait for the main thread.
                os._exit(1)

    def _is_hung(self, beats: int) -> bool:
        """Compare with the others, and tell; False if training went on after all."""
        first = self._read()
        for _ in range(GRACE):
            if self._ended.wait(self._interval) or self._beats != beats:
                return False
            self._publish()
        places = self._read()
        if places[self._member.rank] is None:
            # Not even our own words are there: the store went with a process that ended first,
            # which says nothing of who hangs, and has been reported.
            self._ended.set()
            return False
        silent = {
            rank
            for rank, (old, new) in enumerate(zip(first, places, strict=True))
            if rank != self._member.rank and (new is None or (old and old.ticks == new.ticks))
        }
        verdict = find_suspects(places, silent, self._member.lockstep)
        if self._member.rank == min(set(range(len(places))) - silent):
            event = {
                "step": self._step,
                "kind": "hung",
                "ranks": verdict.ranks,
                "reason": verdict.reason,
                "places": [None if place is None else asdict(place) for place in places],
            }
            told = describe_hang(event)
            print(f"error: {told}", file=sys.stderr, flush=True)
            record_failure(told.splitlines()[0], told)
            # A disk that takes nothing is no reason to hang on.
            with contextlib.suppress(OSError):
                append_jsonl(self._events, event)
        else:
            # A launcher may end all processes when the first is gone: the report comes before.
            self._ended.wait(2 * self._interval)
        return True

    def _publish(self) -> None:
        # Where this thread cannot run any more (the main one holds the interpreter's lock), the
        # stack is still written.
        faulthandler.dump_traceback_later(self._limit, file=sys.__stderr__ or 2)
        self._ticks += 1
        frame = sys._current_frames().get(self._main or 0)
        stack = [] if frame is None else traceback.format_stack(frame)
        place = Place(
            ticks=self._ticks,
            beats=self._beats,
            step=self._step,
            phase=self._phase,
            waits=frame is not None and _waits(frame),
            stack="".join(stack[-12:]),
        )
        try:
            self._store.set(str(self._member.rank), json.dumps(asdict(place)))
        except RuntimeError as error:
            # The store is gone: so is the launcher, or the network. Training notices by itself.
            print(f"warning: the watchdog ends: {error}", file=sys.stderr, flush=True)
            self._ended.set()

    def _read(self) -> list[Place | None]:
        keys = [str(rank) for rank in range(self._member.world_size)]
        try:
            if not self._store.check(keys):
                return [self._read_one(key) for key in keys]
            return [Place(**json.loads(text)) for text in self._store.multi_get(keys)]
        except RuntimeError:
            return [None] * len(keys)

    def _read_one(self, key: str) -> Place | None:
        return Place(**json.loads(self._store.get(key))) if self._store.check([key]) else None


def _waits(frame: FrameType) -> bool:
    path = frame.f_code.co_filename.replace(os.sep, "/")
    return any(package in path for package in COMMUNICATION)
