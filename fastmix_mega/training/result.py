"""What a finished run leaves: its mixture file, its warnings, and the shares that were drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.schema import Config
from fastmix_mega.data.inputs import Inputs
from fastmix_mega.data.rows import any_masked
from fastmix_mega.methods.cost import cost_in_proxy_runs
from fastmix_mega.methods.fastmix import MixtureEstimate
from fastmix_mega.methods.start import SearchStart
from fastmix_mega.mixture.constraints.apply import Constrained
from fastmix_mega.mixture.evidence import CONFIDENT, FEW_OUTER_STEPS, few_outer_steps
from fastmix_mega.mixture.file import MixtureFile, MixtureSource, versions
from fastmix_mega.mixture.reuse import data_digests
from fastmix_mega.mixture.simplex import effective_sources, entropy
from fastmix_mega.mixture.stages import Stage, average_mixture
from fastmix_mega.mixture.target_weights import TargetResult
from fastmix_mega.model.presets import ModelShape
from fastmix_mega.parallel.layout import Layout
from fastmix_mega.training.guards.mixture import is_collapsed
from fastmix_mega.training.identity import starting_point


def mixture_file(
    config: Config,
    inputs: Inputs,
    shape: ModelShape,
    layout: Layout,
    estimate: MixtureEstimate,
    outer_steps: int | None,
    gains: FloatArray | None = None,
    start: SearchStart | None = None,
    by_target: TargetResult | None = None,
    steps: int | None = None,
) -> MixtureFile:
    """The run's answer. A training run has no outer steps, no gains and nothing by target; `steps`
    are those that were made, where a search ended before `train.steps`."""
    tokenizer = inputs.tokenizer
    train = config.train
    made = train.steps if steps is None else steps
    train_tokens = made * train.global_batch * train.seq_length
    weights = estimate.weights / estimate.weights.sum()
    cost = cost_in_proxy_runs(config, shape, outer_steps or 0, made, any_masked(inputs.sources))
    known_gains = [None] * len(weights) if gains is None else gains.tolist()
    return MixtureFile(
        sources=[
            MixtureSource(
                name=given.name,
                weight=float(weight),
                stderr=float(error),
                prefix=given.prefix,
                tokens=source.num_tokens,
                data_sha256=data_digests(source),
                epochs_at_budget=float(weight) * train_tokens / source.num_tokens,
                gain=gain,
            )
            for given, source, weight, error, gain in zip(
                config.sources,
                inputs.sources,
                weights,
                estimate.standard_errors,
                known_gains,
                strict=True,
            )
        ],
        targets=_targets(config, by_target),
        tokenizer={
            "path": config.tokenizer,
            "sha256": tokenizer.sha256,
            "vocab_size": tokenizer.vocab_size,
        },
        search={
            "method": "fixed" if outer_steps is None else config.method,
            "objective": config.search.objective,
            "config_sha256": config.fingerprint(),
            "seed": config.seed,
            "steps": made,
            "outer_steps": outer_steps or 0,
            "train_tokens": train_tokens,
            "cost_in_proxy_runs": round(cost, 4),
            "world_size": layout.world_size,
            "device": device_name(layout.device),
            "code_sha256": code_digest(),
            "layout": layout.sizes,
            "entropy": entropy(weights),
            "effective_sources": effective_sources(weights),
            "warnings": (
                [] if outer_steps is None else search_warnings(config, estimate, outer_steps, start)
            ),
            **({} if made == train.steps else {"converged_after": made}),
            **({} if estimate.better is None else {"probability_better": estimate.better}),
            **_begun(config, start),
            **_constrained(config, estimate, known_gains, start),
            **_reused(config, start, train_tokens, cost),
            **({} if config.init_from is None else {"init_from": starting_point(config)}),
        },
        versions=versions(),
    )


def _targets(config: Config, by_target: TargetResult | None) -> list[dict[str, Any]]:
    given = [target.model_dump(mode="json") for target in config.targets]
    if by_target is None:
        return given
    found = by_target.entries(config.source_names)
    return [entry | more for entry, more in zip(given, found, strict=True)]


def device_name(device: torch.device) -> str:
    """`cpu`, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def code_digest() -> str:
    """SHA-256 over this package's source files: which code found the mixture."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _begun(config: Config, start: SearchStart | None) -> dict[str, Any]:
    """The first mixture where token pairs chose it: the configuration does not tell it."""
    if start is None or not start.from_pairs:
        return {}
    begun = dict(zip(config.source_names, start.initial.tolist(), strict=True))
    return {"first_mixture": begun}


def _constrained(
    config: Config,
    estimate: MixtureEstimate,
    gains: Sequence[float | None],
    start: SearchStart | None,
) -> dict[str, Any]:
    """What the limits of the search did: empty without any."""
    constraints = None if start is None else start.constraints
    if constraints is None or estimate.free is None:
        return {}
    found = constraints.apply(estimate.weights)
    limits = constraints.constraints
    effect = Constrained(estimate.free, found.weights, found.holding, found.epochs)
    return {
        "constraints": limits.model_dump(mode="json"),
        "unconstrained": dict(zip(config.source_names, estimate.free.tolist(), strict=True)),
        "limits_reached": effect.holding,
        "epochs_at_large_budget": dict(zip(config.source_names, effect.epochs, strict=True)),
        "predicted_cost_of_constraints": effect.predicted_cost(gains),
    }


def _reused(config: Config, start: SearchStart | None, tokens: int, cost: float) -> dict[str, Any]:
    """What the search kept of an old mixture: empty if nothing."""
    if start is None or start.reuse is None or config.search.reuse is None:
        return {}
    return {"reuse": start.reuse.record(config.search.reuse.mixture, tokens, cost)}


def search_warnings(
    config: Config,
    estimate: MixtureEstimate,
    outer_steps: int,
    start: SearchStart | None,
) -> list[str]:
    """What a reader of the mixture must know, in plain words."""
    from_pairs = start is not None and start.from_pairs
    warnings: list[str] = []
    if outer_steps < FEW_OUTER_STEPS:
        warnings.append(few_outer_steps(outer_steps))
    least, found = config.guards.min_effective_sources, effective_sources(estimate.weights)
    if is_collapsed(found, least, len(estimate.weights)):
        warnings.append(
            "The mixture has collapsed to almost one source; look for a source that overlaps the "
            "target, or lower search.step."
        )
    uniform = 1 / len(estimate.weights)
    far = np.abs(estimate.weights - uniform) > 2 * estimate.standard_errors
    if config.method == "fastmix" and config.search.step != 0 and not far.any():
        warnings.append(
            "No source's weight differs from uniform by more than two standard errors: the search "
            "was too short or too noisy to tell the sources apart."
        )
    # Near a good mixture all sources are worth the same next, so that scores cannot tell it from
    # its neighbours, nor from uniform (docs/quality.md): no evidence is asked of the small moves.
    if not from_pairs and estimate.better is not None and estimate.better < CONFIDENT:
        warnings.append(
            "The search was too short or too noisy to show that its mixture is better than the one "
            f"it began with: the probability is {estimate.better:.0%}, and {CONFIDENT:.0%} is "
            "wanted. Search for more steps, or raise search.target_batch."
        )
    return warnings


def share_rows(
    names: Sequence[str],
    stages: Sequence[Stage],
    drawn_at: Sequence[NDArray[np.int64]],
    drawn: NDArray[np.int64],
    steps: int,
) -> list[dict[str, Any]]:
    """Requested and observed token shares of every source, for every stage and for the whole run.

    Args:
        names: of the sources.
        stages: of the run, in order.
        drawn_at: per stage, [S] samples drawn before it began.
        drawn: [S] samples drawn in all.
        steps: of the whole run.
    """
    rows = []
    ends = [*drawn_at[1:], drawn]
    for stage, before, after in zip(stages, drawn_at, ends, strict=True):
        rows += _rows(names, stage.name, stage.mixture, after - before)
    if len(stages) > 1:
        rows += _rows(names, "all", average_mixture(stages, steps), drawn)
    return rows


def share_table(rows: Sequence[dict[str, Any]]) -> str:
    """For people."""
    wide = max(6, *(len(row["source"]) for row in rows))
    lines = [f"{'stage':<8}  {'source':<{wide}}  requested  observed  difference"]
    lines += [
        f"{row['stage']:<8}  {row['source']:<{wide}}  {row['requested']:9.3%}  "
        f"{row['observed']:8.3%}  {row['observed'] - row['requested']:+10.3%}"
        for row in rows
    ]
    return "\n".join(lines)


def _rows(
    names: Sequence[str], stage: str, mixture: FloatArray, drawn: NDArray[np.int64]
) -> list[dict[str, Any]]:
    total = max(1, int(drawn.sum()))
    return [
        {
            "stage": stage,
            "source": name,
            "requested": float(share),
            "observed": int(count) / total,
            "samples": int(count),
        }
        for name, share, count in zip(names, mixture, drawn, strict=True)
    ]
