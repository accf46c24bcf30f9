"""Start the processes of a run on this machine, under torchrun's agent: what `--nproc` does.

The agent lives in this process. Signals become a stop file that all workers see, so that they can
stop at a step boundary, however long that takes (torchrun itself would kill them after 30 s); a
second signal kills them at once. Without CUDA the workers are forks of this process, which has
imported the libraries for all of them; CUDA's driver does not survive a fork.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from fastmix_mega.cli.imports import import_libraries
from fastmix_mega.errors import EXIT_DECIDED, UserError
from fastmix_mega.parallel import devices
from fastmix_mega.training.stop import SIGNALS, STOP_FILE_VARIABLE


@dataclass(frozen=True)
class Healing:
    """What a launcher may do after a failure."""

    run_dir: str
    limit: int = 3
    """Restarts within an hour; 0 for none."""


@dataclass(frozen=True)
class Nodes:
    """This machine's place among several that run together."""

    count: int
    rank: int
    address: str
    """host:port of the first node."""


def under_launcher() -> bool:
    """Whether torchrun (or Slurm through torchrun) already started this process."""
    return "RANK" in os.environ


def default_processes() -> int:
    """One per GPU of this machine, or one."""
    import torch

    return max(1, torch.cuda.device_count())


def run_processes(
    main: Callable[[Sequence[str]], int],
    arguments: Sequence[str],
    processes: int,
    nodes: Nodes | None = None,
    healing: Healing | None = None,
) -> int:
    """Run `fastmix ARGUMENTS` in several processes.

    Args:
        main: the command; workers that are forks of this process call it.
        arguments: of the command.
        processes: on this machine.
        nodes: this machine's place among several.
        healing: of a run that goes on from its checkpoints; None never starts it again.

    Returns:
        0 if every process ended well, else the exit code of the first that did not.

    Raises:
        UserError: if this machine has fewer GPUs than that.
    """
    # Read when torch is imported, and by every worker.
    threads = max(1, devices.usable_cores() // processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    import torch

    if mistakes := devices.problems(processes):
        raise UserError("\n".join(mistakes))
    if torch.cuda.is_available():
        # torch reads it when it is imported; what depends on the layout, each process sets itself.
        devices.prepare_cuda(tensor=1, context=1)
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.run import config_from_args, parse_args

    forked = not torch.cuda.is_available() and nodes is None
    with tempfile.TemporaryDirectory(prefix="fastmix-") as directory:
        # torchrun would leave a folder of its own behind at every start.
        own = ["--log-dir", directory, "--nproc-per-node", str(processes)]
        options = parse_args([*_place(nodes), *own, "-m", "fastmix_mega", *arguments])
        if forked:
            options.start_method = "fork"
        stop_file = Path(directory) / "stop"
        os.environ[STOP_FILE_VARIABLE] = str(stop_file)
        with _signals_ask_to_stop(stop_file):
            try:
                config, entry, words = config_from_args(options)
                command: list[Any] = [entry, words]
                if forked:
                    _prepare_for_forks()
                    command = [_work, (main, arguments)]
                return _run_agent(config, command, healing, stop_file)
            except SignalException as stopped:
                return 128 + int(stopped.sigval)


def _run_agent(config: Any, command: list[Any], healing: Healing | None, stop_file: Path) -> int:
    """As torch's `launch_agent`, with an agent that heals.

    Args:
        config: torch's, of the launch.
        command: what a worker is, and its arguments.
        healing: see `run_processes`.
        stop_file: which is there when somebody wants the run to stop.
    """
    from torch.distributed.elastic.agent.server.api import WorkerSpec
    from torch.distributed.elastic.rendezvous import RendezvousParameters
    from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

    from fastmix_mega.cli.healing import HealingAgent

    # It tells of every exit code that is not 0 with a report of its own; the agent below tells
    # of those that the worker could not explain itself.
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    several = config.rdzv_backend == "static"
    host, _, port = config.rdzv_endpoint.rpartition(":")
    meeting = get_rendezvous_handler(
        RendezvousParameters(
            config.rdzv_backend,
            config.rdzv_endpoint,
            config.run_id,
            config.min_nodes,
            config.max_nodes,
            **config.rdzv_configs,
        )
    )
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = config.signals_to_handle
    spec = WorkerSpec(
        role=config.role,
        local_world_size=config.nproc_per_node,
        entrypoint=command[0],
        args=tuple(command[1]),
        rdzv_handler=meeting,
        # How often it is started again, the agent judges by itself.
        max_restarts=sys.maxsize,
        monitor_interval=config.monitor_interval,
        master_addr=host if several else None,
        master_port=int(port) if several else None,
    )
    agent = HealingAgent(
        healing.run_dir if healing else "",
        healing.limit if healing else 0,
        stop_file,
        spec=spec,
        logs_specs=config.logs_specs,
        start_method=config.start_method,
    )
    try:
        failed = agent.run().is_failed()
    finally:
        meeting.shutdown()
    if not failed:
        return 0
    return 1 if agent.verdict is None else _exit_code(agent.verdict.failure.code)


@contextmanager
def _signals_ask_to_stop(stop_file: Path) -> Iterator[None]:
    """A signal makes the stop file; a second one, a second later or more, kills the workers."""
    from torch.distributed.elastic.multiprocessing.api import SignalException

    asked: list[float] = []

    def ask(number: int, frame: FrameType | None) -> None:
        del frame
        asked.append(time.monotonic())
        stop_file.touch()
        if asked[-1] - asked[0] > 1.0:
            raise SignalException(f"second signal {number}", sigval=signal.SIGKILL)

    before = {each: signal.signal(each, ask) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _place(nodes: Nodes | None) -> list[str]:
    """What torchrun must know of this machine's place."""
    signals = ["--signals-to-handle", "SIGHUP,SIGQUIT"]
    if nodes is None:
        name = uuid.uuid4().hex
        meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--rdzv-id", name]
        return [*meeting, *signals]
    host, _, port = nodes.address.rpartition(":")
    place = ["--nnodes", str(nodes.count), "--node-rank", str(nodes.rank)]
    return [*place, "--master-addr", host, "--master-port", port, *signals]


def _prepare_for_forks() -> None:
    import_libraries()
    # Else every fork would copy what its first collection of garbage touches.
    gc.freeze()


def _work(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> None:
    """A forked worker's life."""
    try:
        code = main(arguments)
    except Exception:
        traceback.print_exc()
        code = 1
    if code:
        raise SystemExit(code)


def _exit_code(code: int) -> int:
    """The launcher's, from that of the process that failed; a signal that killed it is negative."""
    if code < 0:
        return 128 - code
    return 1 if code == EXIT_DECIDED else code
