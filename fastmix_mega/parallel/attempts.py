"""A launcher may start the processes of a run again after a failure: what each start must know.

torchrun hands all starts the same key-value store (with TORCHELASTIC_USE_AGENT_STORE), in which the
addresses of dead processes still stand. Every start has keys of its own here.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import traceback
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

ATTEMPT_VARIABLE = "TORCHELASTIC_RESTART_COUNT"
ERROR_FILE_VARIABLE = "TORCHELASTIC_ERROR_FILE"
"""Environment variable: where torchrun's agent looks for why a process ended."""


def attempt() -> int:
    """How often the launcher has started the processes again; 0 without a launcher."""
    return int(os.environ.get(ATTEMPT_VARIABLE, "0"))


def keys_of_attempt(name: str) -> str:
    """The prefix of this start's keys in a store that outlives it."""
    return f"{name}-{attempt()}"


def open_world(backend: str, timeout: timedelta) -> None:
    """Join torch.distributed's world, of which the launcher's variables tell."""
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://", timeout=timeout))
    store.set_timeout(timeout)
    own = dist.PrefixStore(keys_of_attempt("fastmix-world"), store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=timeout)


def record_failure(message: str, trace: str | None = None) -> None:
    """Leave word of why this process ends where the launcher looks. Without one nothing is done.

    Args:
        message: in a line.
        trace: of the stack; by default that of the exception that is being handled.
    """
    path = os.environ.get(ERROR_FILE_VARIABLE)
    if not path:
        return
    extra = {"py_callstack": trace or traceback.format_exc(), "timestamp": str(int(time.time()))}
    told: dict[str, Any] = {"message": {"message": message, "extraInfo": extra}}
    with contextlib.suppress(OSError):
        Path(path).write_text(json.dumps(told))


@contextlib.contextmanager
def failures_recorded(*expected: type[Exception]) -> Iterator[None]:
    """Leave word of an error that ends the block, but for those that are told without a trace."""
    try:
        yield
    except expected:
        raise
    except Exception as error:
        record_failure(f"{type(error).__name__}: {error}")
        raise


def mark_end(code: int) -> None:
    """Remember that the run ended on purpose, whatever the launcher makes of the exit code."""
    path = _end_file()
    if path is not None:
        with contextlib.suppress(OSError):
            path.write_text(str(code))


def end_before() -> int | None:
    """The exit code with which a start before this one ended on purpose; None if none did."""
    path = _end_file()
    if attempt() == 0 or path is None or not path.is_file():
        return None
    return int(path.read_text())


def _end_file() -> Path | None:
    """Beside the folders that torchrun makes for every start of a machine's processes."""
    error_file = os.environ.get(ERROR_FILE_VARIABLE, os.devnull)
    return None if error_file == os.devnull else Path(error_file).parents[2] / "fastmix-end"
