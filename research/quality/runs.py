"""Runs of the judge: the product's searches and trainings in processes forked from this one.

Importing the libraries takes longer than a run, and a fork has them already; what `fastmix train`
checks before it starts is checked once.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import shutil
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.timing import one_thread
from fastmix_mega.config.schema import Config
from fastmix_mega.configuration import load_config
from fastmix_mega.data.run_inputs import Inputs, open_inputs
from fastmix_mega.files import read_jsonl
from fastmix_mega.methods.registry import method_of
from fastmix_mega.mixture.file import MixtureFile, read_mixture
from research.quality.records import Records

Overrides = Sequence[str]


@dataclass(frozen=True)
class Family:
    """A configuration whose targets are judged together and searched for one by one."""

    config_path: Path

    @property
    def name(self) -> str:
        return self.config_path.stem

    @cached_property
    def config(self) -> Config:
        return load_config(self.config_path)

    @cached_property
    def inputs(self) -> Inputs:
        return open_inputs(self.config)

    @property
    def targets(self) -> list[str]:
        return [target.name for target in self.config.targets]

    @property
    def tokens(self) -> list[int]:
        """[S]"""
        return [source.num_tokens for source in self.inputs.sources]

    def identity(self) -> dict[str, Any]:
        """What the losses depend on; the search's settings are named by the methods.

        Only what the configuration says: a key that a later version adds changes no loss.
        """
        config = self.config
        return {
            "sources": dict(zip(config.source_names, self.tokens, strict=True)),
            "targets": {each.name: each.num_tokens for each in self.inputs.targets},
            "tokenizer": self.inputs.tokenizer.sha256,
            "model": config.model.model_dump(mode="json", exclude_unset=True),
            "train": config.train.model_dump(mode="json", include=_TRAIN_KEYS, exclude_unset=True),
            "sequences": config.evaluation.sequences,
        }

    def records(self, results: Path) -> Records:
        """What was run of it; `results` is the folder of all families.

        Raises:
            UserError: if they are of other corpora or settings.
        """
        return Records(results / f"{self.name}.jsonl", self.identity())


_TRAIN_KEYS = {"steps", "global_batch", "seq_length", "schedule"}


def check_once(family: Family) -> None:
    """What `fastmix train` checks before every run.

    Raises:
        UserError: if the family cannot run.
    """
    from fastmix_mega.planning.check import check, require_no_mistakes

    require_no_mistakes(check(family.config, 1, "train"))


def warm_up() -> None:
    """Import what every run needs, on one thread, so that forks are safe."""
    one_thread()
    for name in (
        "fastmix_mega.training.trainer",
        "fastmix_mega.report.build",
        "deepspeed",
        "megatron.core",
    ):
        importlib.import_module(name)


@dataclass(frozen=True)
class Searched:
    file: MixtureFile
    history: list[dict[str, Any]]
    """Per outer step: mixture, scores and counts, [S] each; empty if the method has none."""
    cpu_seconds: float


def search(family: Family, target: str, seed: int, overrides: Overrides) -> Searched:
    """Search for one target."""
    number = family.targets.index(target)
    chosen = family.config.targets[number].model_dump(mode="json")
    given = [*overrides, f"targets={json.dumps([chosen])}", "evaluation.sets=[]"]
    run_dir, seconds = _forked(family, "search", seed, given)
    path = run_dir / "history.jsonl"
    history = [
        {key: _short(row[key]) for key in ("mixture", "scores", "counts") if key in row}
        for row in (read_jsonl(path) if path.is_file() else [])
    ]
    return Searched(read_mixture(run_dir / "mixture.json"), history, seconds)


def _short(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def train(family: Family, weights: Sequence[float], seed: int) -> tuple[dict[str, float], float]:
    """Losses on every target of a fresh model trained on a mixture by sampling, and seconds."""
    mixture = dict(zip(family.config.source_names, weights, strict=True))
    run_dir, seconds = _forked(family, "train", seed, [f"mixture={json.dumps(mixture)}"])
    rows = [row["eval"] for row in read_jsonl(run_dir / "metrics.jsonl") if "eval" in row]
    return rows[-1], seconds


def _forked(family: Family, mode: str, seed: int, overrides: Overrides) -> tuple[Path, float]:
    run_dir = Path(family.config.run_dir) / f"{mode}-{os.getpid()}"
    shutil.rmtree(run_dir, ignore_errors=True)
    run_dir.mkdir(parents=True)
    log = run_dir / "output.log"
    words = [str(family.config_path), f"run_dir={run_dir}", f"seed={seed}", *overrides]
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _child(words, mode, log)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"a {mode} failed:\n{log.read_text()[-3000:]}")
    return run_dir, usage.ru_utime + usage.ru_stime


def _child(words: list[str], mode: str, log: Path) -> None:
    code = 1
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        config = load_config(words[0], words[1:])
        method_of(config, "train" if mode == "train" else "search").search()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
