"""The `fastmix` command: one verb a job.

    fastmix check  CONFIG [key.path=value ...]
    fastmix plan   CONFIG --gpus N --gpu-memory GB [--dry-run [--rank R]] [key.path=value ...]
    fastmix doctor [CONFIG] [--nproc N] [--output FILE] [key.path=value ...]
    fastmix search CONFIG [--nproc N] [--seeds N] [key.path=value ...]
    fastmix train  CONFIG [--nproc N] [key.path=value ...]
    fastmix report RUN_DIR [--baseline MIXTURE]
    fastmix verify RUN_DIR [--sha256 HEX]
    fastmix export MIXTURE --to FORMAT --output FILE [--constraints FILE] [--budget-tokens N]
    fastmix export RUN_DIR --to huggingface --output FOLDER
    fastmix import FILE --from FORMAT --output MIXTURE
    fastmix import FOLDER --from huggingface --output KEYS.yaml
    fastmix eval   RUN_DIR [--tasks A,B] [--nproc N] [key.path=value ...]
    fastmix audit  BLEND --budget-tokens N [--sizes FILE]
    fastmix watch  RUN_OR_LOG [--mixture MIXTURE]
    fastmix surface RUN_DIR [--mixture MIXTURE] [--output FILE]
    fastmix retrain RUN_DIR [--mixture MIXTURE] [--seeds N] [key.path=value ...]
    fastmix compare A B
    fastmix pool MIXTURE MIXTURE ... --output MIXTURE
    fastmix ngram CONFIG --output MIXTURE [--tokens N]
    fastmix data TOOL ...            the same as python -m data_tools.TOOL ...

Exit codes: 0 done, 1 failed, 2 the user's mistake, 75 stopped as asked: start again to go on.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmix_mega import __version__
from fastmix_mega.cli import audit as cli_audit
from fastmix_mega.cli import branch as cli_branch
from fastmix_mega.cli import doctor as cli_doctor
from fastmix_mega.cli import evaluate as cli_evaluate
from fastmix_mega.cli import launch
from fastmix_mega.cli import mixtures as cli_mixture
from fastmix_mega.cli import retrain as cli_retrain
from fastmix_mega.cli import surface as cli_surface
from fastmix_mega.cli import verify_run as cli_verify
from fastmix_mega.cli import watch as cli_watch
from fastmix_mega.cli.argument_types import count, positive
from fastmix_mega.cli.launch import Healing
from fastmix_mega.cli.phases import search_phases, show_phases
from fastmix_mega.cli.runs import nodes_of, restarts, run
from fastmix_mega.cli.seeds import report_on, search_seeds
from fastmix_mega.errors import (
    EXIT_DECIDED,
    EXIT_USER_MISTAKE,
    NO_NAME,
    REFUSED,
    RunFailed,
    Stopped,
    UserError,
    shown,
)
from fastmix_mega.parallel import attempts
from fastmix_mega.training.place import PLACES_VARIABLE
from fastmix_mega.training.stop import EXIT_STOPPED

if TYPE_CHECKING:
    from fastmix_mega.config.schema import Config


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["data"]:
        return _data(given[1:])
    parser = _parser()
    # Overrides may stand before and after options, which argparse cannot tell apart by itself.
    options, rest = parser.parse_known_args(given)
    unknown = [word for word in rest if word.startswith("-") or "=" not in word]
    if unknown or (rest and not hasattr(options, "overrides")):
        parser.exit(
            EXIT_USER_MISTAKE,
            f"fastmix {given[0]}: it takes no {' '.join(unknown or rest)}; "
            f"fastmix {given[0]} --help lists what it takes\n",
        )
    if rest:
        options.overrides += rest
    try:
        return int(options.verb(options))
    except UserError as error:
        return _end(EXIT_USER_MISTAKE, given[0], shown(error))
    except RunFailed as failed:
        return _end(EXIT_DECIDED, given[0], str(failed))
    except Stopped as stopped:
        return _end(EXIT_STOPPED, given[0], str(stopped))
    except OSError as error:
        # What a disk or its owner refuses is no fault of the program's.
        if error.errno not in REFUSED:
            raise
        where = f"{str(error.filename)[:500]}: " if error.filename else ""
        code = EXIT_USER_MISTAKE if error.errno in NO_NAME else EXIT_DECIDED
        return _end(code, given[0], f"{where}{error.strerror}")


def _end(code: int, verb: str, message: str) -> int:
    """Tell why the command ends on purpose; returns the exit code."""
    # Every process finds the same mistake; one of them says so.
    if os.environ.get("RANK", "0") == "0":
        print(f"fastmix {verb}: {message}", file=sys.stderr)
    attempts.mark_end(code)
    told = launch.under_launcher() and PLACES_VARIABLE in os.environ
    return 1 if code == EXIT_DECIDED and not told else code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastmix",
        description="Find the best data mixture with one proxy model.",
        epilog="Start with `fastmix check configs/demo.yaml`. "
        "Exit codes: 0 done, 1 failed, 2 a mistake in the input, 75 stopped as asked (resumable).",
    )
    parser.add_argument("--version", action="version", version=f"fastmix-mega {__version__}")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")

    _add_check(verbs)
    _add_runs(verbs)
    _add_plan(verbs)

    report = verbs.add_parser("report", help="write a run folder's report.html anew")
    report.add_argument("run_dir", type=Path)
    report.add_argument(
        "--baseline",
        metavar="MIXTURE",
        help="your present mixture, to stand beside the answer: a mixture.json, a run folder, "
        "uniform or proportional",
    )
    report.set_defaults(verb=_report)
    cli_mixture.add_verbs(verbs)
    cli_audit.add_verb(verbs)
    cli_watch.add_verb(verbs)
    cli_evaluate.add_verb(verbs, positive, main)
    cli_doctor.add_verb(verbs, positive, nodes_of, main)
    cli_retrain.add_verb(verbs, positive, main)
    cli_branch.add_verb(verbs, positive, main)
    cli_surface.add_verb(verbs)
    cli_verify.add_verb(verbs)
    verbs.add_parser("data", help="prepare data: fastmix data TOOL --help", add_help=False)
    return parser


def _add_check(verbs: Any) -> None:
    check = verbs.add_parser("check", help="find every mistake before any training")
    _config_arguments(check)
    check.add_argument(
        "--mode",
        choices=("search", "train"),
        help="for which verb (default: train if the configuration names no targets and gives a "
        "mixture or stages, else search)",
    )
    check.add_argument(
        "--start",
        action="store_true",
        help="also the mixture that the run would begin with, which reads a sample of the data",
    )
    check.set_defaults(verb=_check)


def _add_runs(verbs: Any) -> None:
    for name, verb, text in (
        ("search", _search, "find the mixture, by default with one proxy run"),
        ("train", _train, "train with a fixed mixture"),
    ):
        run = verbs.add_parser(name, help=text)
        _config_arguments(run)
        if name == "search":
            run.add_argument(
                "--seeds",
                type=positive,
                default=1,
                metavar="N",
                help="search with N seeds and pool them: standard errors, agreement",
            )
        run.add_argument(
            "--max-restarts",
            type=count,
            metavar="N",
            help="how often within an hour the processes are started again, from the last "
            f"checkpoint, after one of them has died (default: {Healing.limit})",
        )
        run.set_defaults(verb=verb)


def _add_plan(verbs: Any) -> None:
    plan = verbs.add_parser("plan", help="memory, communication and the layout for N GPUs")
    plan.add_argument("config", help="a YAML configuration, for example configs/large_7b.yaml")
    plan.add_argument("overrides", nargs="*", metavar="key.path=value", help="change it")
    plan.add_argument(
        "--gpus", type=positive, metavar="N", help="of the whole run (default: this machine's)"
    )
    plan.add_argument(
        "--gpu-memory", type=float, default=80.0, metavar="GB", help="of one GPU (default: 80)"
    )
    plan.add_argument("--gpus-per-node", type=positive, default=8, metavar="N", help="default: 8")
    plan.add_argument("--mode", choices=("search", "train"), default="search", help="of the run")
    cli_doctor.add_dry_run(plan)
    plan.set_defaults(verb=_plan)


def _config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="a YAML configuration, for example configs/demo.yaml")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key.path=value",
        help="change the configuration, for example train.steps=100",
    )
    parser.add_argument(
        "--nproc",
        type=positive,
        metavar="N",
        help="processes on this machine (default: one per GPU, or one)",
    )
    parser.add_argument(
        "--allow-changed",
        action="append",
        default=[],
        metavar="NAME",
        help="continue the run folder's run although NAME differs, for example train.steps",
    )
    parser.add_argument(
        "--sweep-seed",
        type=int,
        metavar="N",
        help="one run of a sweep over seeds: seed=N, in the run folder's seed_N",
    )
    several = parser.add_argument_group("several machines (one command on each)")
    several.add_argument("--nnodes", type=positive, default=1, help="how many")
    several.add_argument("--node-rank", type=int, default=0, help="this one's number, from 0")
    several.add_argument("--rendezvous", metavar="HOST:PORT", help="a free port of number 0")


def _load(options: argparse.Namespace) -> Config:
    from fastmix_mega.configuration import load_config
    from fastmix_mega.training.seed_folders import seed_folder

    config = load_config(options.config, options.overrides)
    if options.sweep_seed is None:
        return config
    folder = seed_folder(config.run_dir, options.sweep_seed)
    own = [f"seed={options.sweep_seed}", f"run_dir={json.dumps(str(folder))}"]
    return load_config(options.config, [*options.overrides, *own])


def _check(options: argparse.Namespace) -> int:
    from fastmix_mega.planning.check import describe, mode_of
    from fastmix_mega.planning.fits_here import check_here

    config = _load(options)
    mode = options.mode or mode_of(config)
    processes = options.nproc or launch.default_processes()
    if config.phases and mode == "search":
        return show_phases(options.config, options.overrides, config, processes)
    findings = check_here(config, processes, options.nnodes, mode, options.allow_changed)
    print(describe(config, findings, mode))
    if options.start and not findings.mistakes:
        from fastmix_mega.planning.start_mixture import describe_start

        print(describe_start(config, mode))
    return EXIT_USER_MISTAKE if findings.mistakes else 0


def _plan(options: argparse.Namespace) -> int:
    from fastmix_mega.configuration import load_config
    from fastmix_mega.planning.describe import describe_plans
    from fastmix_mega.planning.dry_run import method_that_runs
    from fastmix_mega.planning.layouts import Machine

    if not options.gpu_memory > 0:
        raise UserError("--gpu-memory must be a positive number of gigabytes")
    given = load_config(options.config, options.overrides)
    method, options.mode = method_that_runs(given, options.mode)
    config = method.config
    machine = Machine(options.gpu_memory * 1e9, options.gpus_per_node)
    if options.gpus is None:
        options.gpus = _gpus_here(options.gpu_memory)
    if options.dry_run or options.rank is not None:
        return cli_doctor.dry_run(config, options, machine)
    print(describe_plans(config, options.gpus, options.mode, machine))
    return 0


def _gpus_here(memory: float) -> int:
    """Of this machine; what a plan assumes where there are none is said."""
    import torch

    if not torch.cuda.device_count():
        print(
            f"no GPU here, and no --gpus: this is a plan for one GPU of {memory:.0f} GB; for other "
            "machines say --gpus N --gpu-memory GB\n"
        )
    return launch.default_processes()


def _search(options: argparse.Namespace) -> int:
    processes = options.nproc or launch.default_processes()
    several = launch.under_launcher() or options.nnodes > 1
    config = _load(options)
    if config.phases:
        if several or options.seeds > 1 or options.sweep_seed is not None:
            raise UserError(
                "phases are searched one after the other on this machine, with one seed; for more, "
                "search each phase by itself, with init_from"
            )
        numbers = (processes, restarts(options))
        return search_phases(main, options.config, options.overrides, numbers, config)
    if options.seeds > 1:
        if several:
            raise UserError(
                "--seeds starts processes on this machine; for several machines start one job a "
                "seed, then fastmix pool"
            )
        words, most = (options.config, options.overrides), restarts(options)
        return search_seeds(main, *words, options.seeds, processes, most)
    return run(main, options, "search", config)


def _train(options: argparse.Namespace) -> int:
    return run(main, options, "train", _load(options))


def _report(options: argparse.Namespace) -> int:
    print("\n".join(report_on(options.run_dir, options.baseline)))
    return 0


def _data(arguments: Sequence[str]) -> int:
    from data_tools.commands import TOOLS

    tool = arguments[0] if arguments else ""
    if tool not in TOOLS:
        lines = [f"  {name:16} {text}" for name, text in TOOLS.items()]
        asked = tool in ("-h", "--help")
        print(
            "\n".join(["fastmix data TOOL, with TOOL one of", *lines]),
            file=sys.stdout if asked else sys.stderr,
        )
        return 0 if asked else EXIT_USER_MISTAKE
    module = importlib.import_module(f"data_tools.{tool}")
    return int(module.main(list(arguments[1:])) or 0)
