"""How the processes of a run leave when something has gone wrong: together, or not at all.

Under NCCL `destroy_process_group` waits for what other processes have not answered. A process that
fails alone (most of all: out of memory) would wait there for the timeout, its own error unseen,
while the others call it lost. So an unexpected error is printed at once and ends the process, and
errors that all processes find alike are waited for, for a moment.

A process that is killed (most of all: by a machine without memory) tells nothing, and its peers
fail at their next collective. They stay for a moment, so that the launcher sees which was first.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch.distributed as dist

from fastmix_mega.errors import RunFailed, Stopped, UserError
from fastmix_mega.parallel.attempts import record_failure

PATIENCE_SECONDS = 10.0
"""How long a process waits for the others to find the same error."""
LINGER_SECONDS = 2.0
"""How long a process that has told its error stays: the launcher looks ten times a second, names
the first that ended, and of several that it finds at once any."""
ALIKE = (UserError, RunFailed, Stopped)
"""What all processes should raise together."""


@contextlib.contextmanager
def leaving_together(destroy: Callable[[], None]) -> Iterator[None]:
    """Run the block, and `destroy` the process groups when all processes leave it together.

    An unexpected error on one of several processes does not leave the block: it is printed with
    its traceback, and the process ends with exit code 1.
    """
    try:
        yield
    except ALIKE as error:
        if dist.get_world_size() > 1 and not _all_leave():
            record_failure(f"alone stops: {error}")
            _end(f"rank {dist.get_rank()} alone stops: {error}")
        destroy()
        raise
    except Exception as error:
        record_failure(f"{type(error).__name__}: {error}")
        if dist.get_world_size() > 1:
            _end(f"rank {dist.get_rank()} failed:\n{traceback.format_exc()}")
        destroy()
        raise
    destroy()


def _end(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(LINGER_SECONDS)
    # Ordinary ways to end would wait for threads of NCCL and for the other processes.
    os._exit(1)


def _all_leave() -> bool:
    """Whether every process comes here within `PATIENCE_SECONDS`."""
    store: Any = dist.distributed_c10d._get_default_store()
    size, end = dist.get_world_size(), time.monotonic() + PATIENCE_SECONDS
    try:
        store.add("fastmix-leaving", 1)
        while store.add("fastmix-leaving", 0) < size:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        # The store may live in rank 0: it stays until all have seen the count.
        store.add("fastmix-left", 1)
        while dist.get_rank() == 0 and store.add("fastmix-left", 0) < size:
            if time.monotonic() > end:
                break
            time.sleep(0.02)
    except RuntimeError:
        return False  # The store is gone, and a process with it.
    return True
