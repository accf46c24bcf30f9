"""`fastmix export RUN --to huggingface`, and `fastmix import FOLDER --from huggingface`.

An export is a folder that transformers loads: config.json, safetensors in shards, the tokenizer.
An import writes no weights: it writes the keys of a configuration that starts from the folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from fastmix_mega.errors import UserError
from fastmix_mega.files import fsync_directory, write_atomic, write_json
from fastmix_mega.model.presets import ModelShape, resolve_shape
from fastmix_mega.output_file import ResultFile, require_output_file
from fastmix_mega.weights.architecture import write_architecture
from fastmix_mega.weights.hf_tokenizer import is_translation, write_tokenizer
from fastmix_mega.weights.huggingface import (
    INDEX,
    JSON,
    MODEL,
    SINGLE,
    TOKENIZERS,
    HuggingFaceWeights,
)
from fastmix_mega.weights.names import parameter_names, split, their_names, their_shapes
from fastmix_mega.weights.runs import RunWeights

SHARD_BYTES = 5_000_000_000
WIDTHS = {torch.float32: 4, torch.bfloat16: 2}


def export_huggingface(
    run: str | Path, output: str | Path, shard_bytes: int = SHARD_BYTES
) -> list[str]:
    """Write a run's model as a Hugging Face folder, in the checkpoint's dtype.

    Args:
        run: a run folder (its newest checkpoint) or one checkpoint.
        output: a folder that does not exist yet.
        shard_bytes: how large a file of tensors may be.

    Returns:
        What to tell the user.

    Raises:
        UserError: if there is no whole checkpoint, or no family has its options.
    """
    weights, output = RunWeights(run), Path(output)
    damage = weights.damage()
    if damage:
        raise UserError(f"{weights.directory} is damaged: {'; '.join(damage)}")
    if output.exists():
        raise UserError(f"{output} exists; name a new folder")
    shape = resolve_shape(weights.model, 1)
    dtype = torch.bfloat16 if weights.config.precision == "bf16" else torch.float32
    tokenizer = weights.open_tokenizer()
    ids = {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eod}
    content = write_architecture(
        weights.model, shape, _max_length(weights), str(dtype).removeprefix("torch."), ids
    )
    partial = output.with_name(f"{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        write_json(partial / "config.json", content)
        # Not in config.json: there, a padding token would no longer be trained.
        ids["pad_token_id"] = tokenizer.eod
        known = {name: number for name, number in ids.items() if number is not None}
        write_json(partial / "generation_config.json", known)
        lines = write_tokenizer(tokenizer, partial)
        _write_tensors(weights, shape, dtype, partial, shard_bytes)
        partial.rename(output)
        fsync_directory(output.parent)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(f"cannot write {output}: {error.strerror or error}") from None
    kind = f"{shape.parameters / 1e6:.1f}M parameters as {content['model_type']}"
    return [
        *lines,
        f"step {weights.manifest.step}: {kind}, {content['torch_dtype']}",
        f"use: AutoModelForCausalLM.from_pretrained({str(output)!r})",
    ]


def import_huggingface(folder: str | Path, output: str | Path | ResultFile) -> list[str]:
    """Write the keys of a configuration that starts from a Hugging Face folder.

    Returns:
        What to tell the user.

    Raises:
        UserError: if the model is not supported, or the folder is damaged.
    """
    output = require_output_file(output)
    weights = HuggingFaceWeights(folder)
    shape, family = weights.shape, weights.architecture.family
    lines = [f"{shape.parameters / 1e6:.1f}M parameters, {family}; {len(weights.names())} tensors"]
    content: dict[str, Any] = {"init_from": str(weights.folder)}
    found = [weights.folder / name for name in TOKENIZERS if (weights.folder / name).is_file()]
    if len(found) > 1 and is_translation(weights.folder / MODEL, weights.folder / JSON):
        # An export of ours: its data was made with the model, whose SHA-256 the files name.
        found = [weights.folder / MODEL]
    if found:
        content["tokenizer"] = str(found[0])
    else:
        lines.append("warning: the folder has no tokenizer; name it as `tokenizer`")
    if weights.window is not None:
        lines.append(
            f"warning: attention looks back {weights.window} tokens only there; keep "
            "train.seq_length within that"
        )
    content["model"] = weights.model.model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    title = f"# Keys by fastmix-mega, for a configuration that starts from this {family} model."
    write_atomic(output, f"{title}\n{text}")
    return [*lines, f"put these keys into your configuration: {output}"]


def _write_tensors(
    weights: RunWeights, shape: ModelShape, dtype: torch.dtype, folder: Path, shard_bytes: int
) -> None:
    shards = list(_shards(shape, WIDTHS[dtype], shard_bytes))
    where: dict[str, str] = {}
    total = 0
    for number, names in enumerate(shards, 1):
        file = (
            SINGLE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        )
        tensors: dict[str, Tensor] = {}
        for name in names:
            parts = split(name, weights.read(name), shape)
            for theirs, part in zip(their_names(name), parts, strict=True):
                tensors[theirs] = part.to(dtype).contiguous().clone()
        save_file(tensors, folder / file, metadata={"format": "pt"})
        # It makes the file private; a result is for the team.
        (folder / file).chmod(0o644)
        where |= dict.fromkeys(tensors, file)
        total += sum(tensor.nbytes for tensor in tensors.values())
    if len(shards) > 1:
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": where})


def _shards(shape: ModelShape, width: int, limit: int) -> Iterator[list[str]]:
    """Our parameters' names, file by file."""
    names: list[str] = []
    filled = 0
    for name in parameter_names(shape):
        size = width * sum(int(torch.Size(s).numel()) for s in their_shapes(name, shape))
        if names and filled + size > limit:
            yield names
            names, filled = [], 0
        names.append(name)
        filled += size
    yield names


def _max_length(weights: RunWeights) -> int:
    """Tokens per sequence that the model can take: the run's, or what it started from had."""
    lengths = [weights.config.train.seq_length]
    scaling = weights.config.model.rotary_scaling
    if scaling is not None:
        lengths.append(int(scaling.factor * scaling.original_length))
    start = weights.config.init_from
    if start is not None:
        try:
            given = json.loads((Path(start) / "config.json").read_bytes())
            lengths.append(int(given["max_position_embeddings"]))
        except (OSError, ValueError, KeyError, TypeError):
            pass
    return max(lengths)
