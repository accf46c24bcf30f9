"""Ranks that are forked from one process with the libraries already imported.

python -m tests.ranks        answers one request a line; used by `tests.launch.run_config`

Importing torch, DeepSpeed and megatron-core takes most of a tiny run's time. A rank here is a real
process with its own process groups and its own file descriptors; only its imports are shared. What
is about start-up itself (the launcher, signals, the compiler) is tested with cold starts.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastmix_mega.cli.imports import import_libraries

LIMIT_SECONDS = 300.0
GRACE_SECONDS = 5.0
"""How long the others have to notice that one has failed, as a launcher would give them."""


def warm_up() -> None:
    """Import what every rank needs, on one thread, so that forks are safe."""
    os.environ |= {"OMP_NUM_THREADS": "1"}
    import_libraries()
    importlib.import_module("tests.faulty")
    # Else every fork would copy what its first collection of garbage touches.
    gc.freeze()


def start(
    arguments: Sequence[str],
    processes: int,
    log: Path | None = None,
    fault: str = "",
    variables: Mapping[str, str] | None = None,
) -> list[int]:
    """`fastmix ARGUMENTS` in forks of this process, as a launcher would start them.

    Args:
        arguments: of the command; after `python`, a module whose `main` takes the others.
        processes: how many ranks; one alone is started without a launcher's variables.
        log: where all of them write (appended); by default where this process does.
        fault: see tests/faulty.py.
        variables: of the ranks' environment.

    Returns:
        The process ids, in the order of ranks.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launched: dict[str, str] = {}
    pids = []
    for rank in range(processes):
        if processes > 1 or fault:
            launched = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
            launched |= {"LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1"}
            launched["MASTER_PORT"] = str(port)
        pid = os.fork()
        if not pid:
            _be_a_rank(arguments, launched | dict(variables or {}), log, fault)
        pids.append(pid)
    return pids


def _be_a_rank(
    arguments: Sequence[str], launched: dict[str, str], log: Path | None, fault: str
) -> None:
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if log is not None:
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(file, 1)
            os.dup2(file, 2)
        os.environ |= launched
        from fastmix_mega.cli import main as cli
        from fastmix_mega.training.stop import die_with_parent
        from tests import faulty

        die_with_parent()
        if fault:
            faulty.install_all(fault, launched["RANK"])
        if arguments[0] == "python":
            code = importlib.import_module(arguments[1]).main(arguments[2:])
        else:
            code = cli.main(list(arguments))
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def supervise(ranks: Sequence[int], limit: float = LIMIT_SECONDS) -> int:
    """Wait for all.

    Args:
        ranks: process ids.
        limit: seconds, after which all are killed.

    Returns:
        0 if all ended well; the exit code of the first that did not, 128 + the signal's number if
        one killed it; 124 if they had to be killed because the time was over.
    """
    alive, code, end = set(ranks), 0, time.monotonic() + limit
    while alive:
        for pid in sorted(alive):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                alive.remove(pid)
                found = os.waitstatus_to_exitcode(status)
                if found and not code:
                    code = found if found > 0 else 128 - found
                    end = time.monotonic() + GRACE_SECONDS
        if alive and time.monotonic() > end:
            code = code or 124
            kill(*alive)
        time.sleep(0.01)
    return code


def kill(*pids: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Requests {arguments, processes, log, fault} in, exit codes out, one JSON value a line."""
    answers = os.fdopen(os.dup(1), "w")
    # What the libraries print must not be taken for an answer.
    os.dup2(2, 1)
    warm_up()
    for line in sys.stdin:
        request = json.loads(line)
        request["log"] = Path(request["log"])
        answers.write(f"{supervise(start(**request))}\n")
        answers.flush()


if __name__ == "__main__":
    main()
