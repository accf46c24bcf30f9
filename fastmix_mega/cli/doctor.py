"""The verb `doctor` and `plan --dry-run`: words in; what they do is in `doctor` and `planning`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmix_mega.cli import launch
from fastmix_mega.cli.launch import Nodes
from fastmix_mega.errors import UserError
from fastmix_mega.output_file import ResultFile, add_output, require_output_file

if TYPE_CHECKING:
    from fastmix_mega.config.schema import Config
    from fastmix_mega.planning.layouts import Machine


def add_dry_run(plan: argparse.ArgumentParser) -> None:
    """Add the options of a dry run to the verb `plan`."""
    plan.add_argument(
        "--dry-run",
        action="store_true",
        help="run two steps of the ranks that need most, without GPUs: does the layout run, and "
        "what does it need?",
    )
    plan.add_argument("--rank", type=int, metavar="R", help="of the dry run: this rank alone")


def dry_run(config: Config, options: argparse.Namespace, machine: Machine) -> int:
    from fastmix_mega.planning.describe_dry_run import describe_dry_runs

    if not options.dry_run:
        raise UserError("--rank is of --dry-run; give both")
    print(describe_dry_runs(config, options.gpus, options.mode, machine, options.rank))
    return 0


def add_verb(
    verbs: Any,
    positive: Callable[[str], int],
    nodes_of: Callable[[argparse.Namespace], Nodes | None],
    main: Callable[[Sequence[str]], int],
) -> None:
    """Add `doctor` to the command's parser.

    Args:
        verbs: of the parser.
        positive: reads a number of at least 1.
        nodes_of: this machine's place among several, from the options.
        main: the command, for further processes.
    """
    verb = verbs.add_parser("doctor", help="does this machine do all that a run needs?")
    verb.add_argument(
        "config",
        nargs="?",
        help="your configuration: its process groups are tried, and one step of it is measured",
    )
    verb.add_argument("overrides", nargs="*", metavar="key.path=value", help="change it")
    verb.add_argument(
        "--nproc", type=positive, metavar="N", help="processes (default: one per GPU, or two)"
    )
    verb.add_argument("--mode", choices=("search", "train"), default="search", help="of the step")
    add_output(verb, "the JSON to write", default=Path("fastmix-doctor.json"))
    # For the processes of one part; not for people.
    verb.add_argument("--part", help=argparse.SUPPRESS)
    several = verb.add_argument_group("several machines (one command on each)")
    several.add_argument("--nnodes", type=positive, default=1, help="how many")
    several.add_argument("--node-rank", type=int, default=0, help="this one's number, from 0")
    several.add_argument(
        "--rendezvous", metavar="HOST:PORT", help="of number 0; the port and ten after it are free"
    )
    verb.set_defaults(verb=partial(_doctor, nodes_of, main))


def _doctor(
    nodes_of: Callable[[argparse.Namespace], Nodes | None],
    main: Callable[[Sequence[str]], int],
    options: argparse.Namespace,
) -> int:
    if options.config is not None and "=" in options.config:
        options.overrides, options.config = [options.config, *options.overrides], None
    if options.config is None and options.overrides:
        raise UserError("key.path=value changes a configuration; name one")
    if options.part is not None:
        return _part(nodes_of(options), main, options)
    require_output_file(ResultFile(options.output, options.overwrite))
    from fastmix_mega.doctor.examination import Patient, examine
    from fastmix_mega.parallel import devices

    devices.require_usable_gpus()
    if options.config is not None:
        _load(options)
    processes = options.nproc or _default_processes()
    if mistakes := devices.problems(processes):
        raise UserError("\n".join(mistakes))
    nodes = nodes_of(options)
    patient = Patient(
        options.config,
        options.overrides,
        options.mode,
        processes,
        options.output,
        *(() if nodes is None else (nodes.count, nodes.rank, nodes.address)),
    )
    return 0 if examine(patient) else 1


def _default_processes() -> int:
    """One per GPU; two where there is none, so that processes have somebody to talk to."""
    import torch

    return launch.default_processes() if torch.cuda.is_available() else 2


def _part(
    nodes: Nodes | None, main: Callable[[Sequence[str]], int], options: argparse.Namespace
) -> int:
    from fastmix_mega.cli.imports import import_libraries

    if not launch.under_launcher() and (options.nproc > 1 or nodes is not None):
        words = ["doctor", *([options.config] if options.config else []), *options.overrides]
        words += ["--part", options.part, "--output", str(options.output), "--mode", options.mode]
        return launch.run_processes(main, words, options.nproc, nodes)
    config = None if options.config is None else _load(options)
    import_libraries()
    from fastmix_mega.doctor.worker import work

    work(options.part, config, options.mode, options.output)
    return 0


def _load(options: argparse.Namespace) -> Config:
    from fastmix_mega.configuration import load_config

    return load_config(options.config, options.overrides)
