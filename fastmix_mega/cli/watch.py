"""`fastmix watch`: whether a large run does what it was asked to."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any


def add_verb(verbs: Any) -> None:
    """Add the verb to the command's parser."""
    watch = verbs.add_parser(
        "watch", help="a training run's shares and losses against what was asked and predicted"
    )
    watch.add_argument(
        "run",
        type=Path,
        metavar="RUN_OR_LOG",
        help="a run folder, or a log of Megatron, torchtitan",
    )
    watch.add_argument(
        "--mixture", type=Path, metavar="MIXTURE", help="what was asked (default: the run's own)"
    )
    watch.add_argument(
        "--predicted", type=Path, metavar="FILE", help="losses at the end by held-out set, as JSON"
    )
    watch.add_argument(
        "--follow", type=float, metavar="SECONDS", help="look again so often, until interrupted"
    )
    watch.set_defaults(verb=_watch)


def _watch(options: argparse.Namespace) -> int:
    """Exit code 1 if the run has drifted."""
    from fastmix_mega.errors import UserError
    from fastmix_mega.mixture.file import mixture_path, read_mixture
    from fastmix_mega.report.watch import asked_of_run, describe, read_predictions, read_run

    asked = asked_of_run(options.run) if options.run.is_dir() else None
    if options.mixture is not None:
        asked = read_mixture(mixture_path(options.mixture)).weights
    predicted = None if options.predicted is None else read_predictions(options.predicted)
    while True:
        try:
            lines, warnings = describe(read_run(options.run), asked, predicted)
        except OverflowError:
            raise UserError(f"{options.run} holds numbers that no run has: damaged?") from None
        print("\n".join([*lines, *(f"warning: {text}" for text in warnings)]), flush=True)
        if options.follow is None:
            return 1 if warnings else 0
        try:
            time.sleep(max(1.0, options.follow))
        except KeyboardInterrupt:
            return 1 if warnings else 0
