"""Open and cross-check everything that a run reads: tokenizer, sources, targets, held-out sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastmix_mega.config import Config, SourceConfig
from fastmix_mega.data.source import TokenSource
from fastmix_mega.data.tokenizer import Tokenizer

EVALUATION_SEED = 0
"""Held-out sequences are the same for every run, so that runs with other seeds are paired."""


@dataclass(frozen=True)
class Inputs:
    tokenizer: Tokenizer
    sources: list[TokenSource]
    targets: list[TokenSource]
    evaluation_sets: list[TokenSource]


def open_inputs(config: Config) -> Inputs:
    """Open every file of the configuration; O(1) per file.

    Raises:
        UserError: naming the first file that is missing, broken or made with another tokenizer.
    """
    length = config.train.seq_length

    def open_all(entries: Sequence[SourceConfig], seed: int) -> list[TokenSource]:
        return [TokenSource(entry.name, entry.prefixes, length, seed) for entry in entries]

    holdout = config.evaluation.holdout
    sources = [
        TokenSource(entry.name, entry.prefixes, length, config.seed, holdout)
        for entry in config.sources
    ]
    held_out = [
        TokenSource(f"held_out/{entry.name}", entry.prefixes, length, EVALUATION_SEED, holdout, True)
        for entry in config.sources
        if holdout
    ]
    return Inputs(
        tokenizer=Tokenizer(config.tokenizer),
        sources=sources,
        targets=open_all(config.targets, config.seed),
        evaluation_sets=[*open_all(config.evaluation.sets, EVALUATION_SEED), *held_out],
    )
