"""The `fastmix` command: one verb a job.

    fastmix check  CONFIG [key.path=value ...]
    fastmix plan   CONFIG --gpus N --gpu-memory GB [--dry-run [--rank R]] [key.path=value ...]
    fastmix doctor [CONFIG] [--nproc N] [--output FILE] [key.path=value ...]
    fastmix search CONFIG [--nproc N] [--seeds N] [key.path=value ...]
    fastmix train  CONFIG [--nproc N] [key.path=value ...]
    fastmix report RUN_DIR
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
import errno
import importlib
import json
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmix_mega import __version__
from fastmix_mega.cli import audit as cli_audit
from fastmix_mega.cli import doctor as cli_doctor
from fastmix_mega.cli import evaluate as cli_evaluate
from fastmix_mega.cli import launch
from fastmix_mega.cli import mixtures as cli_mixture
from fastmix_mega.cli import retrain as cli_retrain
from fastmix_mega.cli import surface as cli_surface
from fastmix_mega.cli import verify_run as cli_verify
from fastmix_mega.cli import watch as cli_watch
from fastmix_mega.cli.imports import import_libraries
from fastmix_mega.cli.launch import Nodes
from fastmix_mega.cli.seeds import report_on, search_seeds
from fastmix_mega.errors import RunFailed, Stopped, UserError, shown
from fastmix_mega.parallel import devices
from fastmix_mega.training.run_lock import HELD_VARIABLE, run_lock
from fastmix_mega.training.stop import EXIT_STOPPED, die_with_parent

if TYPE_CHECKING:
    from fastmix_mega.config.schema import Config
    from fastmix_mega.training.run import Verb

EXIT_USER_MISTAKE = 2
REFUSED = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EFBIG, errno.ELOOP),
)
NO_NAME = (errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR, errno.ENOTDIR)
"""Of these, what is wrong with the name itself."""


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
        # Every process finds the same mistake; one of them says so.
        if os.environ.get("RANK", "0") == "0":
            print(f"fastmix {given[0]}: {shown(error)}", file=sys.stderr)
        return EXIT_USER_MISTAKE
    except RunFailed as failed:
        if os.environ.get("RANK", "0") == "0":
            print(f"fastmix {given[0]}: {failed}", file=sys.stderr)
        return 1
    except Stopped as stopped:
        if os.environ.get("RANK", "0") == "0":
            print(f"fastmix {given[0]}: {stopped}", file=sys.stderr)
        return EXIT_STOPPED
    except OSError as error:
        # What a disk or its owner refuses is no fault of the program's.
        if error.errno not in REFUSED:
            raise
        where = f"{str(error.filename)[:500]}: " if error.filename else ""
        print(f"fastmix {given[0]}: {where}{error.strerror}", file=sys.stderr)
        return EXIT_USER_MISTAKE if error.errno in NO_NAME else 1


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
    report.set_defaults(verb=_report)
    cli_mixture.add_verbs(verbs)
    cli_audit.add_verb(verbs)
    cli_watch.add_verb(verbs)
    cli_evaluate.add_verb(verbs, _positive, main)
    cli_doctor.add_verb(verbs, _positive, _nodes, main)
    cli_retrain.add_verb(verbs, _positive, main)
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
                type=_positive,
                default=1,
                metavar="N",
                help="search with N seeds and pool them: standard errors, agreement",
            )
        run.set_defaults(verb=verb)


def _add_plan(verbs: Any) -> None:
    plan = verbs.add_parser("plan", help="memory, communication and the layout for N GPUs")
    plan.add_argument("config", help="a YAML configuration, for example configs/large_7b.yaml")
    plan.add_argument("overrides", nargs="*", metavar="key.path=value", help="change it")
    plan.add_argument(
        "--gpus", type=_positive, metavar="N", help="of the whole run (default: this machine's)"
    )
    plan.add_argument(
        "--gpu-memory", type=float, default=80.0, metavar="GB", help="of one GPU (default: 80)"
    )
    plan.add_argument("--gpus-per-node", type=_positive, default=8, metavar="N", help="default: 8")
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
        type=_positive,
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
    several.add_argument("--nnodes", type=_positive, default=1, help="how many")
    several.add_argument("--node-rank", type=int, default=0, help="this one's number, from 0")
    several.add_argument("--rendezvous", metavar="HOST:PORT", help="a free port of number 0")


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


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
    from fastmix_mega.planning.check import check, describe, mode_of

    config = _load(options)
    mode = options.mode or mode_of(config)
    findings = check(config, options.nproc or 1, mode, options.allow_changed)
    findings.mistakes += [f"  {text}" for text in devices.problems(options.nproc or 1)]
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
    options.gpus = options.gpus or launch.default_processes()
    if options.dry_run or options.rank is not None:
        return cli_doctor.dry_run(config, options, machine)
    print(describe_plans(config, options.gpus, options.mode, machine))
    return 0


def _search(options: argparse.Namespace) -> int:
    if options.seeds > 1:
        if launch.under_launcher() or options.nnodes > 1:
            raise UserError(
                "--seeds starts processes on this machine; for several machines start one job a "
                "seed, then fastmix pool"
            )
        processes = options.nproc or launch.default_processes()
        return search_seeds(main, options.config, options.overrides, options.seeds, processes)
    return _run(options, "search")


def _train(options: argparse.Namespace) -> int:
    return _run(options, "train")


def _run(options: argparse.Namespace, mode: Verb) -> int:
    # Whatever the user's mask: nobody else changes a run's files.
    os.umask(os.umask(0o077) | 0o002)
    config = _load(options)
    allowed = options.allow_changed
    if launch.under_launcher():
        die_with_parent()
        from fastmix_mega.parallel.layout import world_size_from_environment

        if options.nproc is not None or options.nnodes > 1:
            raise UserError("--nproc and --nnodes start processes; under torchrun leave them out")
        first = os.environ["RANK"] == "0"
        if first:
            _require_no_mistakes(config, world_size_from_environment(), mode, allowed)
        with _lock(config, mode, first):
            return _run_here(config, mode)
    processes = options.nproc or launch.default_processes()
    nodes = _nodes(options)
    first = options.node_rank == 0
    if first:
        _require_no_mistakes(config, processes * options.nnodes, mode, allowed)
    with _lock(config, mode, first):
        if processes == 1 and nodes is None:
            return _run_here(config, mode)
        words = [mode, options.config, *options.overrides]
        words += [f"--allow-changed={name}" for name in allowed]
        if options.sweep_seed is not None:
            words.append(f"--sweep-seed={options.sweep_seed}")
        return launch.run_processes(main, words, processes, nodes)


def _require_no_mistakes(
    config: Config, processes: int, mode: Verb, allowed: Sequence[str]
) -> None:
    """Find every mistake before the run, and say what is doubtful. Raises: UserError."""
    from fastmix_mega.planning.check import check, require_no_mistakes

    findings = check(config, processes, mode, allowed)
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


def _nodes(options: argparse.Namespace) -> Nodes | None:
    if options.nnodes == 1:
        return None
    if options.rendezvous is None or ":" not in options.rendezvous:
        raise UserError("--nnodes needs --rendezvous HOST:PORT of the first machine")
    if not 0 <= options.node_rank < options.nnodes:
        raise UserError(f"--node-rank must be from 0 to {options.nnodes - 1}")
    return Nodes(options.nnodes, options.node_rank, options.rendezvous)


def _report(options: argparse.Namespace) -> int:
    print("\n".join(report_on(options.run_dir)))
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
