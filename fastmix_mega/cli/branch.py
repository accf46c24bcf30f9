"""The verb `branch`: short branches of a search's model, as more evidence for its loss surface.

fastmix branch RUN [--source NAME] [--nproc N] [key.path=value ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fastmix_mega.cli import launch
from fastmix_mega.cli.retrain import train_missing
from fastmix_mega.cli.surface import table
from fastmix_mega.errors import UserError
from fastmix_mega.output_file import require_output_file
from fastmix_mega.training.run_lock import run_lock

Main = Callable[[Sequence[str]], int]
BEST_FILE = "best.json"
"""In the folder of the branches: the best mixture with them as evidence."""
DEAR = 1.0
"""Proxy runs, above which fewer branches are suggested."""


def add_verb(verbs: Any, positive: Callable[[str], int], main: Main) -> None:
    """Add `branch` to the command's parser.

    Args:
        verbs: of the parser.
        positive: reads a number of at least 1.
        main: the command, for the processes of the runs.
    """
    verb = verbs.add_parser(
        "branch",
        help="more evidence for a finished search: short branches of its model, one a source",
        description="From a search's last checkpoint, train a short branch a source on a mixture "
        "of which half is that source, and one on the search's own. Then tell the best mixture "
        "with them as evidence. Finished branches are kept: start it again to go on.",
    )
    verb.add_argument("run", type=Path, help="the run folder of a search")
    verb.add_argument(
        "overrides",
        nargs="*",
        metavar="key.path=value",
        help="change the branches' configuration, for example train.steps=100 (default: a "
        "twentieth of the search's)",
    )
    verb.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="NAME",
        help="only a branch of this source; repeatable (default: every source)",
    )
    verb.add_argument("--nproc", type=positive, metavar="N", help="processes on this machine")
    verb.add_argument(
        "--output", "-o", type=Path, help="folder of the branches (default: RUN/branches)"
    )
    verb.set_defaults(verb=partial(_branch, main))


def _branch(main: Main, options: argparse.Namespace) -> int:
    from fastmix_mega.configuration import load_config
    from fastmix_mega.evaluation.branches import branch_study
    from fastmix_mega.methods.predictions import Foresight

    if launch.under_launcher():
        raise UserError("branch starts its own processes; run it without torchrun")
    folder = options.output or options.run / "branches"
    require_output_file(folder / BEST_FILE, [options.run])
    study = branch_study(options.run, options.overrides, options.source, folder)
    count, seed = len(study.candidates), study.seeds[0]
    steps = study.config(study.candidates[0], seed).train.steps
    cost = count * steps / load_config(options.run / "config.yaml").train.steps
    print(f"{count} branches of {steps} steps: {cost:.2g} proxy runs", flush=True)
    if cost > DEAR and not options.source:
        print("name the sources in doubt with --source, for fewer of them", flush=True)
    with run_lock(folder, "fastmix branch"):
        code = train_missing(main, study, options.nproc or launch.default_processes())
        if code != 0:
            return code
        found = Foresight(options.run, evidence=[str(folder)])
        assert found.runs is not None
        found.mixture_file([str(folder)]).write(folder / BEST_FILE)
    print("\n".join([*found.runs.facts, *found.runs.warnings, "", table(found.rows([]))]))
    print(f"\nbest mixture: {folder / BEST_FILE}")
    return 0
