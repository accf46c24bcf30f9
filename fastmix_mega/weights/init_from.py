"""`init_from`: what a run starts from, whether that fits its configuration, and what it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch.distributed as dist

from fastmix_mega.config.schema import Config
from fastmix_mega.config.sections import ModelSection
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError
from fastmix_mega.model.initialize import Weights
from fastmix_mega.model.presets import resolve_shape
from fastmix_mega.parallel.layout import Layout
from fastmix_mega.weights.huggingface import HuggingFaceWeights
from fastmix_mega.weights.runs import RunWeights


class StartingPoint(Weights, Protocol):
    """Weights with what is known about them."""

    model: ModelSection
    """Complete: a shape can be resolved from it alone."""
    tokenizers: dict[str, str]
    """SHA-256 of its tokenizer, by path: every form of it; empty where it is not known."""
    window: int | None
    """Tokens that attention looks back, where it is not all of them."""

    def names(self) -> list[str]: ...

    def damage(self, rank: int = 0, size: int = 1) -> list[str]:
        """What is wrong with this process's share of the files; reads them."""

    def identity(self) -> dict[str, Any]:
        """kind, path and SHA-256, for the run's records."""


def open_start(path: str | Path) -> StartingPoint:
    """Open a run folder, a checkpoint or a Hugging Face folder; only headers are read.

    Raises:
        UserError: if it is none of them, or its weights cannot be taken.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(
            f"{folder} is no folder; name a run folder, one of its checkpoints, or a Hugging Face "
            "folder"
        )
    if (folder / "config.json").is_file():
        return HuggingFaceWeights(folder)
    return RunWeights(folder)


def open_start_together(path: str, layout: Layout) -> StartingPoint:
    """Open it on every process, and compare checksums, each process those of its share.

    Raises:
        UserError: on every process alike.
    """
    start, found = None, []
    try:
        start = open_start(path)
        found = start.damage(layout.rank, layout.world_size)
    except UserError as error:
        found = [str(error)]
    everyone: list[list[str]] = [found]
    if layout.world_size > 1:
        gathered: list[Any] = [None] * layout.world_size
        dist.all_gather_object(gathered, found)
        everyone = gathered
    merged = sorted({text for part in everyone for text in part})
    if merged:
        raise UserError(f"init_from: {path}: {'; '.join(merged)}")
    assert start is not None
    return start


def mismatches(config: Config, start: StartingPoint, tokenizer: Tokenizer) -> Iterator[str]:
    """How what is started from differs from the configuration, both sides named.

    Raises:
        UserError: if either model's sizes do not fit together.
    """
    there = _sizes(start.model, start.model.vocab_size or 0)
    here = _sizes(config.model, tokenizer.vocab_size)
    for key, value in here.items():
        if there[key] != value:
            yield (
                f"init_from: model.{key} is {there[key]} in {config.init_from}, but {value} here; "
                f"set model.{key} to {there[key]}"
            )
    if start.tokenizers and tokenizer.sha256 not in start.tokenizers.values():
        path, sha256 = next(iter(start.tokenizers.items()))
        yield (
            f"init_from: {config.init_from} was trained with another tokenizer ({path}, "
            f"{sha256[:12]}... instead of {tokenizer.sha256[:12]}... here); its tokens would mean "
            "other text: use that tokenizer, and preprocess the data with it"
        )
    length = config.train.seq_length
    if start.window is not None and length > start.window:
        yield (
            f"init_from: attention in {config.init_from} looks back {start.window} tokens only, "
            f"which this model's does not; set train.seq_length ({length}) to at most that"
        )


def _sizes(section: ModelSection, vocab_size: int) -> dict[str, Any]:
    """Everything about a model that its weights depend on, by configuration key."""
    shape, scaling = resolve_shape(section, vocab_size), section.rotary_scaling
    return {
        "layers": shape.layers,
        "hidden_size": shape.hidden_size,
        "attention_heads": shape.attention_heads,
        "key_value_heads": shape.key_value_heads,
        "head_size": shape.head_size,
        "ffn_size": shape.ffn_size,
        "vocab_size": shape.vocab_size,
        "tie_embeddings": shape.tie_embeddings,
        "qkv_bias": shape.qkv_bias,
        "qk_norm": shape.qk_norm,
        "rotary_base": section.rotary_base,
        "rotary_scaling": None if scaling is None else scaling.model_dump(),
        "norm_epsilon": section.norm_epsilon,
    }
