"""`fastmix search` and `train`: here, or in processes that a launcher starts on this machine."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from fastmix_mega.cli import launch
from fastmix_mega.cli.imports import import_libraries
from fastmix_mega.cli.launch import Healing, Nodes
from fastmix_mega.errors import RunFailed, Stopped, UserError
from fastmix_mega.parallel import attempts
from fastmix_mega.training.run_lock import HELD_VARIABLE, run_lock
from fastmix_mega.training.stop import die_with_parent

if TYPE_CHECKING:
    from fastmix_mega.config.schema import Config
    from fastmix_mega.training.run import Verb

Main = Callable[[Sequence[str]], int]


def run(main: Main, options: argparse.Namespace, mode: Verb, config: Config) -> int:
    """Run a verb in this process, or in processes that a launcher starts; returns the exit code.

    Args:
        main: the command, for processes that are forks of this one.
        options: of the command line.
        mode: `search` or `train`.
        config: of the run.

    Raises:
        UserError: naming all mistakes, before any training.
    """
    # Whatever the user's mask: nobody else changes a run's files.
    os.umask(os.umask(0o077) | 0o002)
    allowed = options.allow_changed
    if allowed:
        import_libraries()  # The last checkpoint is looked into; without their warnings.
    if launch.under_launcher():
        die_with_parent()
        from fastmix_mega.parallel.layout import world_size_from_environment

        if options.nproc is not None or options.nnodes > 1 or options.max_restarts is not None:
            raise UserError(
                "--nproc, --nnodes and --max-restarts are for starting processes; under torchrun "
                "leave them out"
            )
        ended = attempts.end_before()
        if ended is not None:
            return ended
        first = os.environ["RANK"] == "0"
        if first and attempts.attempt() == 0:
            world = world_size_from_environment()
            here = min(world, int(os.environ.get("LOCAL_WORLD_SIZE", world)))
            _require_no_mistakes(config, (here, world // here), mode, allowed)
        with _lock(config, mode, first), attempts.failures_recorded(UserError, RunFailed, Stopped):
            return _run_here(config, mode)
    processes = options.nproc or launch.default_processes()
    nodes = nodes_of(options)
    first = options.node_rank == 0
    if first:
        _require_no_mistakes(config, (processes, options.nnodes), mode, allowed)
    with _lock(config, mode, first):
        # By itself, one process of one machine is no launcher's.
        if processes == 1 and nodes is None and not options.max_restarts:
            return _run_here(config, mode)
        words = [mode, options.config, *options.overrides]
        words += [f"--allow-changed={name}" for name in allowed]
        if options.sweep_seed is not None:
            words.append(f"--sweep-seed={options.sweep_seed}")
        healing = Healing(config.run_dir, restarts(options))
        return launch.run_processes(main, words, processes, nodes, healing)


def restarts(options: argparse.Namespace) -> int:
    """How often within an hour a launcher starts the processes again."""
    return Healing.limit if options.max_restarts is None else int(options.max_restarts)


def _require_no_mistakes(
    config: Config, processes: tuple[int, int], mode: Verb, allowed: Sequence[str]
) -> None:
    """Find every mistake before the run, and say what is doubtful.

    Args:
        config: of the run.
        processes: on this machine, and machines.
        mode: `search` or `train`.
        allowed: see `check`.

    Raises:
        UserError: naming all mistakes.
    """
    from fastmix_mega.planning.check import require_no_mistakes
    from fastmix_mega.planning.fits_here import check_here

    findings = check_here(config, *processes, mode, allowed)
    require_no_mistakes(findings)
    if HELD_VARIABLE in os.environ:
        return  # The launcher of this process has said so.
    for warning in findings.warnings:
        print(f"warning: {warning}", file=sys.stderr, flush=True)


def _lock(config: Config, mode: str, first: bool) -> AbstractContextManager[None]:
    """One process of a run holds the run folder's lock for all of them."""
    return run_lock(config.run_dir, f"fastmix {mode}") if first else nullcontext()


def _run_here(config: Config, mode: Verb) -> int:
    """This process's part of the run."""
    from fastmix_mega.methods.registry import method_of

    method = method_of(config, mode)
    if method.trains:
        import_libraries()
    method.search()
    return 0


def nodes_of(options: argparse.Namespace) -> Nodes | None:
    """This machine's place among several; None for one alone. Raises: UserError."""
    if options.nnodes == 1:
        return None
    if options.rendezvous is None or ":" not in options.rendezvous:
        raise UserError("--nnodes needs --rendezvous HOST:PORT of the first machine")
    if not 0 <= options.node_rank < options.nnodes:
        raise UserError(f"--node-rank must be from 0 to {options.nnodes - 1}")
    return Nodes(options.nnodes, options.node_rank, options.rendezvous)
