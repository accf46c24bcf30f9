"""Runs of the judge: the product's searches and trainings in processes forked from this one.

Importing the libraries takes longer than a run, and a fork has them already; what `fastmix train`
checks before it starts is checked once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fastmix_mega.config.schema import Config
from fastmix_mega.configuration import load_config
from fastmix_mega.data.run_inputs import Inputs, open_inputs
from fastmix_mega.files import read_jsonl
from fastmix_mega.mixture.file import MixtureFile, read_mixture
from research.forked import run_forked, shortened
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
    run_dir, seconds = run_forked(family, "search", seed, given)
    path = run_dir / "history.jsonl"
    history: list[dict[str, Any]] = [
        {key: shortened(row[key]) for key in ("mixture", "scores", "counts") if key in row}
        for row in (read_jsonl(path) if path.is_file() else [])
    ]
    return Searched(read_mixture(run_dir / "mixture.json"), history, seconds)


def train(family: Family, weights: Sequence[float], seed: int) -> tuple[dict[str, float], float]:
    """Losses on every target of a fresh model trained on a mixture by sampling, and seconds."""
    mixture = dict(zip(family.config.source_names, weights, strict=True))
    run_dir, seconds = run_forked(
        family,
        "train",
        seed,
        [f"mixture={json.dumps(mixture)}"],
    )
    rows = [row["eval"] for row in read_jsonl(run_dir / "metrics.jsonl") if "eval" in row]
    return rows[-1], seconds
