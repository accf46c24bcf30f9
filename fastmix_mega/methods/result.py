"""What a finished search or training leaves: its mixture file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.schema import Config
from fastmix_mega.data.run_inputs import Inputs
from fastmix_mega.mixture.controller import MixtureEstimate
from fastmix_mega.mixture.file import MixtureFile, MixtureSource, versions
from fastmix_mega.mixture.reuse import data_digests
from fastmix_mega.mixture.simplex import effective_sources, entropy
from fastmix_mega.mixture.target_weights import TargetResult
from fastmix_mega.training.identity import starting_point
from fastmix_mega.training.run import Run

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Answer:
    """What a method found."""

    method: str
    estimate: MixtureEstimate
    cost: float
    """In proxy runs, everything included."""
    warnings: list[str]
    outer_steps: int = 0
    gains: FloatArray | None = None
    """[S] by how much the target loss fell per unit of a source's share; None if not known."""
    targets: TargetResult | None = None
    """What is known of each target by itself."""
    more: dict[str, Any] = field(default_factory=dict)
    """Further fields of the file's `search`."""


def mixture_file(run: Run, answer: Answer, steps: int) -> MixtureFile:
    """The answer of a method that trained in the run folder.

    Args:
        run: its parts.
        answer: what the method found.
        steps: training steps made, which are fewer than `train.steps` if a search ended early.
    """
    config, layout = run.given, run.layout
    weights = answer.estimate.weights / answer.estimate.weights.sum()
    tokens = run.tokens(steps)
    search: dict[str, Any] = {
        "method": answer.method,
        "objective": config.search.objective,
        "config_sha256": config.fingerprint(),
        "seed": config.seed,
        "steps": steps,
        "outer_steps": answer.outer_steps,
        "train_tokens": tokens,
        "cost_in_proxy_runs": round(answer.cost, 4),
        "world_size": layout.world_size,
        "device": device_name(layout.device),
        "code_sha256": code_digest(),
        "layout": layout.sizes,
        "entropy": entropy(weights),
        "effective_sources": effective_sources(weights),
        "warnings": answer.warnings,
    }
    if steps != config.train.steps:
        search["converged_after"] = steps
    if answer.estimate.better is not None:
        search["probability_better"] = answer.estimate.better
    search |= answer.more
    if config.init_from is not None:
        search["init_from"] = starting_point(config)
    return MixtureFile(
        sources=_sources(run, answer, weights, tokens),
        targets=_targets(config, answer.targets),
        tokenizer=_tokenizer(config, run.inputs),
        search=search,
        versions=versions(),
    )


def _sources(run: Run, answer: Answer, weights: FloatArray, tokens: int) -> list[MixtureSource]:
    """Every source with its weight [S], and how often a training of so many tokens reads it."""
    gains = [None] * len(weights) if answer.gains is None else answer.gains.tolist()
    return [
        MixtureSource(
            name=given.name,
            weight=float(weight),
            stderr=float(error),
            prefix=given.prefix,
            tokens=source.num_tokens,
            data_sha256=data_digests(source),
            epochs_at_budget=float(weight) * tokens / source.num_tokens,
            gain=gain,
        )
        for given, source, weight, error, gain in zip(
            run.given.sources,
            run.inputs.sources,
            weights,
            answer.estimate.standard_errors,
            gains,
            strict=True,
        )
    ]


def plain_mixture_file(config: Config, inputs: Inputs, answer: Answer) -> MixtureFile:
    """The answer of a method that trained nothing in the run folder itself."""
    weights = answer.estimate.weights
    return MixtureFile(
        sources=[
            MixtureSource(
                name=given.name, weight=float(share), prefix=given.prefix, tokens=source.num_tokens
            )
            for given, source, share in zip(config.sources, inputs.sources, weights, strict=True)
        ],
        targets=_targets(config, None),
        tokenizer=_tokenizer(config, inputs),
        search={
            "method": answer.method,
            "config_sha256": config.fingerprint(),
            "seed": config.seed,
            "cost_in_proxy_runs": round(answer.cost, 4),
            "entropy": entropy(weights),
            "effective_sources": effective_sources(weights),
            "warnings": answer.warnings,
            **answer.more,
        },
        versions=versions(),
    )


def _targets(config: Config, by_target: TargetResult | None) -> list[dict[str, Any]]:
    given = [target.model_dump(mode="json") for target in config.targets]
    if by_target is None:
        return given
    found = by_target.entries(config.source_names)
    return [entry | more for entry, more in zip(given, found, strict=True)]


def _tokenizer(config: Config, inputs: Inputs) -> dict[str, Any]:
    tokenizer = inputs.tokenizer
    return {
        "path": config.tokenizer,
        "sha256": tokenizer.sha256,
        "vocab_size": tokenizer.vocab_size,
    }


def device_name(device: torch.device) -> str:
    """`cpu`, or the GPU's name."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def code_digest() -> str:
    """SHA-256 over this package's source files: which code found the mixture."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
