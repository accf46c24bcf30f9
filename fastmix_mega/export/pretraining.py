"""Trainers of single laboratories: Levanter, Fast-LLM, OLMo-core's composable sources."""

from __future__ import annotations

import math
from typing import Any

from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.errors import UserError
from fastmix_mega.export.blend import Blend, Given
from fastmix_mega.export.plan import Part, Plan
from fastmix_mega.export.text import a_number, from_yaml, required, to_yaml
from fastmix_mega.export.units import epochs_of

LEVANTER_BLOCK = 2048
"""Levanter's default `mixture_block_size`."""
LEVANTER_LARGEST_BLOCK = 2**15
"""It packs two numbers into 32 bits, so that a block holds fewer than 2**16 sequences."""
LEAST_IN_BLOCK = 16
"""Sequences of the rarest source in a block: its share is cut to a whole number of them."""
OLMO = "olmo_core.data.composable"


def levanter_block(weights: list[float]) -> int:
    """The `mixture_block_size` with which no source loses more than 1/16 of its share.

    Raises:
        UserError: if a source would have no sequence in the largest block.
    """
    smallest = min(weights)
    block = LEVANTER_BLOCK
    while block < LEVANTER_LARGEST_BLOCK and smallest * block < LEAST_IN_BLOCK:
        block *= 2
    if math.floor(smallest * block) == 0:
        raise UserError(
            f"Levanter cuts a block of {block} sequences by weight: a source with a share of "
            f"{smallest:.3g} would have none and never be read; drop it, or merge it with another"
        )
    return block


def write_levanter(plan: Plan) -> str:
    """The `data` of a Levanter configuration; a mixture of sequences of one length."""
    parts = plan.parts(None)
    weights = [part.weight for part in parts]
    names = [
        part.source if [each.source for each in parts].count(part.source) == 1 else part.path
        for part in parts
    ]
    data = {
        "components": {
            name: {"cache_dir": part.path} for name, part in zip(names, parts, strict=True)
        },
        "train_weights": dict(zip(names, weights, strict=True)),
        "mixture_block_size": levanter_block(weights),
    }
    return to_yaml(plan.notes, {"data": data})


def read_levanter(given: Given) -> list[Blend]:
    """`train_weights`, or a list of [step, weights]; from a whole configuration or its `data`."""
    content = from_yaml(given.text)
    data = content.get("data", content)
    if not isinstance(data, dict):
        raise UserError("`data` must be a mapping")
    weights, components = data.get("train_weights"), data.get("components") or data.get("configs")
    if isinstance(weights, dict):
        return [Blend(_levanter_parts(weights, components))]
    if not isinstance(weights, list) or not weights:
        raise UserError("there is no `train_weights`")
    per_step = _levanter_step(content)
    found = []
    for at, stage in enumerate(weights):
        if not isinstance(stage, list | tuple) or len(stage) != 2 or not isinstance(stage[1], dict):
            raise UserError("`train_weights` must be a mapping, or a list of [step, mapping]")
        step = int(a_number(stage[0], f"train_weights.{at}"))
        found.append(
            Blend(
                _levanter_parts(stage[1], components),
                stage=f"stage_{at}" if len(weights) > 1 else "",
                begins=step,
                begins_tokens=None if per_step is None else step * per_step,
            )
        )
    return found


def write_fast_llm(plan: Plan) -> str:
    """`data.datasets.training`; Fast-LLM draws packed samples of one length, as Megatron does."""
    parts = plan.parts(None)
    if len(parts) < 2:
        raise UserError("Fast-LLM's blended data set needs two; give the file alone")
    training = {
        "type": "blended",
        "datasets": [{"type": "file", "path": part.path} for part in parts],
        "weights": [part.weight for part in parts],
    }
    return to_yaml(plan.notes, {"data": {"datasets": {"training": training}}})


def read_fast_llm(given: Given) -> list[Blend]:
    """`type: blended`, by itself or in a configuration; blends within blends are multiplied out."""
    node: Any = from_yaml(given.text)
    for key in ("data", "datasets", "training"):
        if isinstance(node, dict) and node.get("type") != "blended" and key in node:
            node = node[key]
    parts: list[Part] = []
    _fast_llm(node, 1.0, parts)
    return [Blend(parts)]


def write_olmo_composable(plan: Plan) -> str:
    """A MixingDocumentSourceConfig over NumpyDocumentSources, as `from_dict` takes it.

    It samples whole documents and counts tokens; our .bin files are what it reads.
    """
    if plan.budget_tokens is None:
        raise UserError("OLMo-core must know how often a source may be read: give --budget-tokens")
    parts = plan.parts("{prefix}.bin", counted=True)
    specs = []
    for name, weight in plan.weights:
        own = [part for part in parts if part.source == name]
        tokens = [part.tokens or 0 for part in own]
        whole = Part(name, "", weight, sum(tokens) if all(tokens) else None)
        (epochs,) = epochs_of([whole], plan.budget_tokens, "OLMo-core")
        specs.append(
            {
                "source": {
                    "_CLASS_": f"{OLMO}.numpy_document_source.NumpyDocumentSourceConfig",
                    "source_paths": [part.path for part in own],
                    # All files of a source in one: its share is of all its text.
                    "source_group_size": -1,
                    **_olmo_tokenizer(plan, name),
                },
                "ratio": weight,
                # The least that lets it reach its share; the margin is for OLMo-core's rounding.
                "max_repetition_factor": max(1.0, math.ceil(epochs * 1.001 * 1000) / 1000),
                "label": name,
            }
        )
    content = {
        "_CLASS_": f"{OLMO}.mixing_document_source.MixingDocumentSourceConfig",
        "source_specs": specs,
        "num_tokens": plan.budget_tokens,
    }
    return to_yaml(plan.notes, content)


def read_olmo_composable(given: Given) -> list[Blend]:
    """Any mixing source: of documents, tokens or instances, within one another too."""
    parts: list[Part] = []
    _olmo_specs(from_yaml(given.text), 1.0, parts)
    return [Blend(parts)]


def _levanter_parts(weights: dict[str, Any], components: Any) -> list[Part]:
    known = components if isinstance(components, dict) else {}
    parts = []
    for name, weight in weights.items():
        about = known.get(name)
        path = about.get("cache_dir") or "" if isinstance(about, dict) else ""
        parts.append(Part(str(name), str(path), a_number(weight, f"train_weights.{name}")))
    return parts


def _levanter_step(content: dict[str, Any]) -> int | None:
    """Tokens of a step, if the configuration tells them."""
    trainer = content.get("trainer")
    batch = trainer.get("train_batch_size") if isinstance(trainer, dict) else None
    length = content.get("train_seq_len")
    if isinstance(batch, int) and isinstance(length, int):
        return batch * length
    return None


def _fast_llm(node: Any, factor: float, parts: list[Part]) -> None:
    if not isinstance(node, dict):
        raise UserError("there is no `type: blended`")
    if node.get("type") == "sampled" and isinstance(node.get("dataset"), dict):
        node = node["dataset"]
    if node.get("type") == "blended":
        datasets, weights = node.get("datasets"), node.get("weights")
        if not (
            isinstance(datasets, list)
            and isinstance(weights, list)
            and len(datasets) == len(weights)
        ):
            raise UserError("`datasets` and `weights` must be lists of one length")
        values = [a_number(weight, "weights") for weight in weights]
        if sum(values) <= 0:
            raise UserError("all weights are 0")
        for dataset, value in zip(datasets, values, strict=True):
            _fast_llm(dataset, factor * value / sum(values), parts)
        return
    (path,) = required(node, "path")
    parts.append(Part("", str(path), factor))


def _olmo_tokenizer(plan: Plan, name: str) -> dict[str, Any]:
    """`tokenizer` and `dtype`, from the manifest of the source's first file."""
    source = next(each for each in plan.mixture.sources if each.name == name)
    prefixes = [source.prefix] if isinstance(source.prefix, str) else source.prefix or []
    file = IndexedTokens(prefixes[0])
    manifest = file.manifest
    if manifest is None or manifest.vocab_size is None or manifest.eod is None:
        raise UserError(
            f"OLMo-core must know the tokenizer's size and end token, and {file.prefix}.json does "
            "not tell them; make the files with fastmix data preprocess or merge"
        )
    return {
        "tokenizer": {
            "_CLASS_": "olmo_core.data.tokenizer.TokenizerConfig",
            "vocab_size": manifest.vocab_size,
            "eos_token_id": manifest.eod,
            "pad_token_id": manifest.eod,
        },
        "dtype": {"int32": "uint32"}.get(file.dtype.name, file.dtype.name),
    }


def _olmo_specs(node: dict[str, Any], factor: float, parts: list[Part]) -> None:
    specs = node.get("source_specs")
    if not isinstance(specs, list) or not specs:
        raise UserError("there is no list `source_specs`")
    ratios = [a_number(required(spec, "ratio")[0], "ratio") for spec in specs]
    for spec, ratio in zip(specs, ratios, strict=True):
        share, source = factor * ratio / sum(ratios), required(spec, "source")[0]
        if isinstance(source, dict) and "source_specs" in source:
            _olmo_specs(source, share, parts)
            continue
        paths = source.get("source_paths") if isinstance(source, dict) else None
        path = str(paths[0]).removesuffix(".bin") if paths and len(paths) == 1 else ""
        name = str(spec.get("label") or (source.get("label") if isinstance(source, dict) else ""))
        parts.append(Part(name if name != "None" else "", path, share))
