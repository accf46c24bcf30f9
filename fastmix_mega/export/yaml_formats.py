"""Trainers that are configured in YAML: GPT-NeoX, OLMo-core, nanotron, mosaicml-streaming."""

from __future__ import annotations

import math
from typing import Any

from fastmix_mega.errors import UserError
from fastmix_mega.export.blend import Blend, Given
from fastmix_mega.export.plan import Part, Plan, refuse_spaces
from fastmix_mega.export.text import from_yaml, to_yaml
from fastmix_mega.mixture.constraints.apply import epochs_at


def write_neox(plan: Plan) -> str:
    """Keys of a GPT-NeoX configuration; its samples have one length, so shares are of tokens."""
    parts = plan.parts("{prefix}")
    refuse_spaces(parts, "GPT-NeoX's launcher")
    content: dict[str, Any] = {
        "train_data_paths": [part.path for part in parts],
        "train_data_weights": [part.weight for part in parts],
    }
    if plan.valid:
        for split in ("valid", "test"):
            content[f"{split}_data_paths"] = list(plan.valid)
            content[f"{split}_data_weights"] = [1.0] * len(plan.valid)
    # True would replace the weights by ones from the numbers of documents.
    return to_yaml(plan.notes, content | {"weight_by_num_documents": False})


def write_olmo(plan: Plan) -> str:
    """OLMo-core's SourceMixtureList. Ratios are of tokens; our .bin files are what it reads."""
    parts = plan.parts("{prefix}.bin")
    tokens = [source.tokens for source in plan.mixture.sources]
    weights = [source.weight for source in plan.mixture.sources]
    budget = plan.budget_tokens
    sources = []
    for source, epochs in zip(
        plan.mixture.sources, epochs_at(weights, tokens, budget), strict=True
    ):
        if source.weight == 0:
            continue
        if epochs is None:
            raise UserError(
                "OLMo-core must know how often a source may be read: give --budget-tokens (and a "
                f"mixture that tells the tokens of {source.name})"
            )
        # The least that lets it reach its share; the margin is for OLMo-core's own rounding.
        repetition = max(1.0, math.ceil(epochs * 1.001 * 1000) / 1000)
        sources.append(
            {
                "source_name": source.name,
                "target_ratio": source.weight,
                "paths": [part.path for part in parts if part.source == source.name],
                "max_repetition_ratio": repetition,
            }
        )
    return to_yaml(plan.notes, {"sources": sources})


def write_nanotron(plan: Plan) -> str:
    """The `dataset` of a nanotron stage: folders of token files. Its samples have one length."""
    parts = plan.parts(None)
    return to_yaml(
        plan.notes,
        {
            "dataset_folder": [part.path for part in parts],
            "dataset_weights": [part.weight for part in parts],
        },
    )


def write_streaming(plan: Plan) -> str:
    """Arguments of mosaicml-streaming's `Stream`, by name.

    A proportion is of samples, which is of tokens if every sample is a packed sequence.
    """
    streams = {
        part.source: {
            "remote": part.path,
            "local": f"/tmp/streaming/{part.source}",
            "proportion": part.weight,
        }
        for part in plan.parts(None)
    }
    return to_yaml(plan.notes, {"streams": streams})


def read_neox(text: str) -> list[Part]:
    content = from_yaml(text)
    # GPT-NeoX takes keys with - for _.
    content = {str(key).replace("-", "_"): value for key, value in content.items()}
    return _zip(content, "train_data_paths", "train_data_weights")


def read_nanotron(given: Given) -> list[Blend]:
    """The `dataset` of a stage, or a whole configuration with one or several stages."""
    content = from_yaml(given.text)
    stages = content.get("data_stages")
    if not isinstance(stages, list):
        return [Blend(_zip(content, "dataset_folder", "dataset_weights"))]
    per_step = _nanotron_step(content)
    found = []
    for number, stage in enumerate(stages):
        try:
            name, first = str(stage["name"]), int(stage["start_training_step"])
            dataset = stage["data"]["dataset"]
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"data_stages.{number} needs name, start_training_step and data.dataset"
            ) from None
        if not isinstance(dataset, dict):
            raise UserError(f"data_stages.{number} ({name}) names no dataset")
        folders = dataset.get("dataset_folder")
        if isinstance(folders, str):
            # nanotron takes a single folder without weights.
            dataset = {"dataset_folder": [folders], "dataset_weights": [1.0]}
        # Steps are counted from 1.
        begins = max(0, first - 1)
        found.append(
            Blend(
                _zip(dataset, "dataset_folder", "dataset_weights"),
                stage=name if len(stages) > 1 else "",
                begins=begins,
                begins_tokens=None if per_step is None else begins * per_step,
            )
        )
    return found


def _nanotron_step(content: dict[str, Any]) -> int | None:
    """Tokens of a training step, if the configuration tells them."""
    try:
        tokens, parallel = content["tokens"], content["parallelism"]
        return (
            int(tokens["sequence_length"])
            * int(tokens["micro_batch_size"])
            * int(tokens["batch_accumulation_per_replica"])
            * int(parallel["dp"])
        )
    except (KeyError, TypeError, ValueError):
        return None


def read_olmo(text: str) -> list[Part]:
    content = from_yaml(text)
    sources = content.get("sources")
    if not isinstance(sources, list) or not sources:
        raise UserError("there is no list `sources`")
    found = []
    for source in sources:
        try:
            name, weight = str(source["source_name"]), float(source["target_ratio"])
            paths = [str(path).removesuffix(".bin") for path in source["paths"]]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"a source lacks a key or has a wrong value: {error}") from None
        found.append(Part(name, paths[0] if len(paths) == 1 else "", weight))
    return found


def read_streaming(text: str) -> list[Part]:
    streams = from_yaml(text).get("streams")
    if not isinstance(streams, dict) or not streams:
        raise UserError("there is no mapping `streams`")
    try:
        return [
            Part(str(name), str(stream.get("remote") or ""), float(stream["proportion"]))
            for name, stream in streams.items()
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"every stream needs a proportion: {error}") from None


def _zip(content: dict[str, Any], paths: str, weights: str) -> list[Part]:
    given, shares = content.get(paths), content.get(weights)
    if not isinstance(given, list) or not isinstance(shares, list) or len(given) != len(shares):
        raise UserError(f"{paths} and {weights} must be lists of the same length")
    try:
        return [
            Part("", str(path), float(share)) for path, share in zip(given, shares, strict=True)
        ]
    except (TypeError, ValueError) as error:
        raise UserError(f"{weights}: {error}") from None
