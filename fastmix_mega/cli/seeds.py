"""Searches of several seeds in one folder, and their pool."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fastmix_mega.errors import UserError
from fastmix_mega.output_file import ResultFile, require_output_file
from fastmix_mega.training.run_lock import run_lock
from fastmix_mega.training.seed_folders import (
    finished_seeds,
    require_a_parent,
    seed_folder,
    seed_folders,
)


def search_seeds(
    main: Callable[[Sequence[str]], int],
    config_path: str,
    overrides: Sequence[str],
    seeds: int,
    processes: int,
    restarts: int,
) -> int:
    """Search with `seeds` seeds, one after the other, and pool them in the run folder.

    Every seed has a run folder inside it, so that finished seeds are kept and an interrupted one
    goes on. On Slurm, an array of jobs and `fastmix pool` do the same side by side. Each may be
    started again so many times within an hour, after a failure.

    Returns:
        The exit code.

    Raises:
        UserError: if the run folder holds a run of its own, or a seed's holds another search.
    """
    from fastmix_mega.configuration import load_config
    from fastmix_mega.report.build import build_report

    config = load_config(config_path, overrides)
    folder = Path(config.run_dir)
    require_a_parent(folder)
    with run_lock(folder, "fastmix search --seeds"):
        runs = []
        for seed in range(config.seed, config.seed + seeds):
            run = seed_folder(folder, seed)
            runs.append(run)
            words = [*overrides, f"seed={seed}", f"run_dir={run}"]
            code = search_one(main, config_path, words, processes, restarts)
            if code != 0:
                return code
        print("\n".join(pool_runs(runs, folder / "mixture.json")))
        print(f"report:  {build_report(folder)}")
    return 0


def search_one(
    main: Callable[[Sequence[str]], int],
    config_path: str,
    words: Sequence[str],
    processes: int,
    restarts: int,
) -> int:
    """Returns the exit code of one seed's search; 0 if it was done before."""
    from fastmix_mega.cli import launch
    from fastmix_mega.configuration import load_config
    from fastmix_mega.mixture.file import read_mixture
    from fastmix_mega.planning.check import require_no_mistakes
    from fastmix_mega.planning.fits_here import check_here

    config = load_config(config_path, words)
    done = Path(config.run_dir) / "mixture.json"
    if done.is_file():
        if read_mixture(done).search.get("config_sha256") != config.fingerprint():
            raise UserError(f"{config.run_dir} holds another search; name another run_dir")
        print(f"seed {config.seed}: done before, in {config.run_dir}", flush=True)
        return 0
    findings = check_here(config, processes, 1, "search")
    require_no_mistakes(findings)
    for warning in findings.warnings:
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    words = ["search", config_path, *words]
    healing = launch.Healing(config.run_dir, restarts)
    return launch.run_processes(main, words, processes, healing=healing)


def pool_runs(mixtures: Sequence[str | Path], output: Path | ResultFile) -> list[str]:
    """Write the pooled mixture; returns what to tell.

    Args:
        mixtures: mixture.json files, run folders, or one folder that holds seeds' runs.
        output: the mixture.json to write.

    Raises:
        UserError: if they are fewer than two, or answers to different questions.
    """
    from fastmix_mega.export.export import describe
    from fastmix_mega.mixture.file import mixture_path, read_mixture
    from fastmix_mega.mixture.pool import pool_files

    if len(mixtures) == 1 and seed_folders(mixtures[0]):
        mixtures = finished_seeds(mixtures[0])
    paths = [mixture_path(name) for name in mixtures]
    output = require_output_file(output, paths)
    pooled = pool_files([read_mixture(path) for path in paths])
    for entry, path in zip(pooled.search["per_seed"], paths, strict=True):
        # As found from the pooled file, so that the whole can be moved.
        entry["run"] = os.path.relpath(path.parent.resolve(), output.resolve().parent)
    pooled.write(output)
    agreement = pooled.search["agreement"]
    lines = [f"pooled over {len(paths)} seeds; rank correlation {agreement:.2f}"]
    return [*lines, *describe(pooled, None), f"mixture: {output}"]


def report_on(run_dir: Path, baseline: str | None = None) -> list[str]:
    """Write a folder's report; returns what to tell.

    Args:
        run_dir: of a run, or of several seeds.
        baseline: a mixture to show beside the answer.

    A folder that holds nothing but seeds' runs, as a sweep leaves it, is pooled first.
    """
    from fastmix_mega.report.build import build_report

    lines = []
    if not (run_dir / "mixture.json").is_file() and not (run_dir / "config.yaml").is_file():
        begun = seed_folders(run_dir)
        if begun:
            finished = finished_seeds(run_dir)
            lines = pool_runs(finished, run_dir / "mixture.json")
            missing = [path.name for path in begun if path not in finished]
            if missing:
                lines.append(f"warning: not finished, so left out: {', '.join(missing)}")
    return [*lines, str(build_report(run_dir, baseline))]
