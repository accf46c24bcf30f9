"""The verb `eval`: words in; what it does is in `fastmix_mega.evaluation.run`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from fastmix_mega.cli import launch
from fastmix_mega.cli.imports import import_libraries
from fastmix_mega.errors import UserError
from fastmix_mega.output_file import ResultFile, add_output, require_output_file


def add_verb(
    verbs: Any, positive: Callable[[str], int], main: Callable[[Sequence[str]], int]
) -> None:
    """Add `eval` to the command's parser.

    Args:
        verbs: of the parser.
        positive: reads a number of at least 1.
        main: the command, for further processes.
    """
    verb = verbs.add_parser("eval", help="a checkpoint's held-out losses, or tasks on it")
    verb.add_argument("run", help="a run folder (its newest checkpoint) or one checkpoint")
    verb.add_argument(
        "overrides",
        nargs="*",
        metavar="key.path=value",
        help="change the run's configuration, for example parallel.tensor=2",
    )
    verb.add_argument(
        "--tasks",
        metavar="A,B",
        help="of lm-evaluation-harness (an optional extra); without it, held-out losses",
    )
    verb.add_argument(
        "--include-path",
        action="append",
        default=[],
        metavar="FOLDER",
        help="with tasks of your own, as YAML; repeatable",
    )
    verb.add_argument("--num-fewshot", type=int, metavar="N", help="examples before each question")
    verb.add_argument("--limit", type=positive, metavar="N", help="documents of each task")
    verb.add_argument(
        "--batch-size", type=positive, default=8, metavar="N", help="texts at once (default: 8)"
    )
    verb.add_argument("--nproc", type=positive, default=1, metavar="N", help="processes")
    add_output(verb, "the JSON to write (default: in the run folder's evaluations)")
    verb.set_defaults(verb=partial(_evaluate, main))


def _evaluate(main: Callable[[Sequence[str]], int], options: argparse.Namespace) -> int:
    tasks = [name.strip() for name in (options.tasks or "").split(",") if name.strip()]
    if not tasks and (options.tasks is not None or options.include_path):
        raise UserError("--tasks names no task; give it names, separated by commas")
    if options.output is not None:
        asked = ResultFile(options.output, options.overwrite)
        require_output_file(asked, marks=[b'"checkpoint": {'])
    if options.nproc > 1 and not launch.under_launcher():
        return launch.run_processes(main, _words(options), options.nproc)
    import_libraries()
    from fastmix_mega.evaluation.run import Evaluation, evaluate

    evaluate(
        Evaluation(
            options.run,
            options.overrides,
            tasks,
            options.include_path,
            options.num_fewshot,
            options.limit,
            options.batch_size,
            options.output,
        )
    )
    return 0


def _words(options: argparse.Namespace) -> list[str]:
    """The same command for every process."""
    words = ["eval", options.run, *options.overrides]
    words += [f"--include-path={folder}" for folder in options.include_path]
    for name in ("tasks", "num_fewshot", "limit", "batch_size", "output"):
        value = getattr(options, name)
        if value is not None:
            words.append(f"--{name.replace('_', '-')}={value}")
    return [*words, "--overwrite"] if options.overwrite else words
