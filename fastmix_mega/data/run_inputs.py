"""Open and cross-check everything that a run reads: tokenizer, sources, targets, held-out sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastmix_mega.config.schema import Config
from fastmix_mega.config.sections import SourceConfig
from fastmix_mega.data.rows import Source, any_masked
from fastmix_mega.data.source import open_source
from fastmix_mega.data.tokenizer import Tokenizer

EVALUATION_SEED = 0
"""Held-out sequences are the same for every run, so that runs with other seeds are paired."""


@dataclass(frozen=True)
class Inputs:
    tokenizer: Tokenizer
    sources: list[Source]
    targets: list[Source]
    evaluation_sets: list[Source]

    @property
    def conversations(self) -> bool:
        """Whether any of them holds conversations."""
        return any_masked([*self.sources, *self.targets, *self.evaluation_sets])


def open_inputs(config: Config, share: float = 1.0) -> Inputs:
    """Open every file of the configuration; O(1) per file.

    Args:
        config: of the run.
        share: of every source's samples, which alone are read (`data.repetition`); targets and
            held-out sets stay whole.

    Raises:
        UserError: naming the first file that is missing, broken or made with another tokenizer.
    """
    length = config.train.seq_length

    def open_all(entries: Sequence[SourceConfig], seed: int) -> list[Source]:
        return [
            open_source(entry.name, entry.prefixes, length, seed, packed=packed)
            for entry in entries
        ]

    packed = config.train.packing
    holdout = config.evaluation.holdout
    sources = [
        open_source(
            entry.name,
            entry.prefixes,
            length,
            config.seed,
            holdout,
            packed=packed,
        )
        for entry in config.sources
    ]
    held_out = [
        open_source(
            f"held_out/{entry.name}",
            entry.prefixes,
            length,
            EVALUATION_SEED,
            holdout,
            held_out=True,
            packed=packed,
        )
        for entry in config.sources
        if holdout
    ]
    return Inputs(
        tokenizer=Tokenizer(config.tokenizer),
        sources=sources if share == 1 else [source.subset(share) for source in sources],
        targets=open_all(config.targets, config.seed),
        evaluation_sets=[*open_all(config.evaluation.sets, EVALUATION_SEED), *held_out],
    )
