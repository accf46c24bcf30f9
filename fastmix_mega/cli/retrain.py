"""The verb `retrain`: fresh models on a run's mixture and on others; `evaluation.retrain` judges.

fastmix retrain RUN [--mixture MIXTURE] [--seeds N] [--nproc N] [key.path=value ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmix_mega.cli import launch
from fastmix_mega.cli.seeds import report_on
from fastmix_mega.errors import UserError
from fastmix_mega.training.run_lock import run_lock

if TYPE_CHECKING:
    from fastmix_mega.evaluation.retrain import Losses, Predictions, Study

Main = Callable[[Sequence[str]], int]


def add_verb(verbs: Any, positive: Callable[[str], int], main: Main) -> None:
    """Add `retrain` to the command's parser.

    Args:
        verbs: of the parser.
        positive: reads a number of at least 1.
        main: the command, for the processes of the runs.
    """
    verb = verbs.add_parser(
        "retrain",
        help="judge a found mixture: fresh models on it and on others, on held-out text",
        description="Train fresh models by plain sampling on a run's mixture and on uniform (and on"
        " every --mixture), with the same seeds, and compare their losses on evaluation.sets. "
        "Finished runs are kept: start it again to go on.",
    )
    verb.add_argument("run", type=Path, help="the run folder of a search, or of several seeds")
    verb.add_argument(
        "overrides",
        nargs="*",
        metavar="key.path=value",
        help="change the run's configuration, for example train.steps=10k",
    )
    verb.add_argument(
        "--mixture",
        action="append",
        default=[],
        metavar="MIXTURE",
        help="another one: proportional, a mixture.json or a run folder; repeatable",
    )
    verb.add_argument(
        "--baseline",
        default="uniform",
        metavar="MIXTURE",
        help="what all are compared with (default: uniform)",
    )
    verb.add_argument(
        "--seeds",
        type=positive,
        default=3,
        metavar="N",
        help="how many fresh models a mixture (default: 3)",
    )
    verb.add_argument(
        "--first-seed",
        type=int,
        default=101,
        metavar="N",
        help="the first model's seed, which no search should have had (default: 101)",
    )
    verb.add_argument("--nproc", type=positive, metavar="N", help="processes on this machine")
    verb.add_argument("--output", "-o", type=Path, help="folder of the runs (default: RUN/retrain)")
    verb.set_defaults(verb=partial(_retrain, main))


def _retrain(main: Main, options: argparse.Namespace) -> int:
    from fastmix_mega.configuration import load_config
    from fastmix_mega.evaluation.retrain import (
        Study,
        candidate_of,
        configuration_of,
        judged_on,
        predictions_of,
        require_different_names,
    )

    if launch.under_launcher():
        raise UserError("retrain starts its own processes; run it without torchrun")
    path = configuration_of(options.run)
    config = load_config(path, options.overrides)
    sets, notes = judged_on(config)
    candidates = [candidate_of(options.baseline), candidate_of(str(options.run), "found")]
    candidates += [candidate_of(given) for given in options.mixture]
    require_different_names(candidates)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    folder = options.output or options.run / "retrain"
    study = Study(path, [*options.overrides, *sets], candidates, seeds, folder)
    print("\n".join(notes), end="\n" if notes else "")
    words = [options.baseline, str(options.run), *options.mixture]
    judged = study.config(candidates[0], seeds[0])
    predicted, missing = predictions_of(options.run, candidates, words, judged)
    if missing:
        print(missing)
    code = run_study(main, study, options.nproc or launch.default_processes(), predicted)
    if code == 0 and options.output is None and (options.run / "report.html").is_file():
        print("\n".join(report_on(options.run)))
    return code


def run_study(
    main: Main, study: Study, processes: int, predicted: Predictions | None = None
) -> int:
    """Train what is missing, then print the table and write retrain.json.

    Returns:
        The exit code: that of the first run that did not end well.

    Raises:
        UserError: if a run cannot be made; before any is trained.

    Args:
        main: the command.
        study: what is trained.
        processes: of every run.
        predicted: what a search said of the mixtures, for the table.
    """
    import json

    from fastmix_mega.evaluation.retrain import final_losses, record, table
    from fastmix_mega.files import write_atomic, write_json

    with run_lock(study.folder, "fastmix retrain"):
        code = train_missing(main, study, processes)
        if code != 0:
            return code
        results: dict[str, list[Losses]] = {
            each.name: [final_losses(study.run_dir(each, seed)) for seed in study.seeds]
            for each in study.candidates
        }
        content = record(study, results, predicted)
        model = json.dumps(content["model"])
        shown = (
            f"{len(study.seeds)} paired seed(s), {content['train_tokens']:,} tokens a run, model "
            f"{model}; losses in nats per token, SD over seeds\n\n{table(results, predicted)}\n"
        )
        write_json(study.folder / "retrain.json", content)
        write_atomic(study.folder / "retrain.md", shown)
    print(f"\n{shown}\nresult:  {study.folder / 'retrain.json'}")
    return 0


def train_missing(main: Main, study: Study, processes: int) -> int:
    """Train what is not finished, one run after the other.

    Returns:
        The exit code: that of the first run that did not end well.

    Raises:
        UserError: if a run cannot be made; before any is trained.

    Args:
        main: the command.
        study: what is trained.
        processes: of every run.
    """
    from fastmix_mega.methods.fixed import finished_before
    from fastmix_mega.planning.check import require_no_mistakes
    from fastmix_mega.planning.fits_here import check_here

    jobs = [(each, seed) for seed in study.seeds for each in study.candidates]
    left = [job for job in jobs if not finished_before(study.config(*job))]
    for first in {candidate.name: (candidate, seed) for candidate, seed in left}.values():
        require_no_mistakes(check_here(study.config(*first), processes, 1, "train"))
    for number, (candidate, seed) in enumerate(left, 1):
        print(f"run {number} of {len(left)}: {candidate.name}, seed {seed}", flush=True)
        words = ["train", str(study.config_path), *study.words(candidate, seed)]
        healing = launch.Healing(str(study.run_dir(candidate, seed)))
        code = launch.run_processes(main, words, processes, healing=healing)
        if code != 0:
            return code
    return 0
