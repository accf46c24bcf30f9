"""Scores of sources by groups of parameters and preconditioners, by plain backward passes.

A score is <P^-1 gradient of the target, mean gradient of the source>, over one group of parameters.
P is nothing, Adam's (as in the product), or at the head the curvature of its loss, to Kronecker's
approximation: (mean p (1 - p) of every vocabulary row) x (second moment of the head's inputs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.plain_model import PlainModel
from fastmix_mega.model.initialize import EMBEDDING_NAME as EMBEDDING
from fastmix_mega.model.initialize import HEAD_NAME as HEAD
from fastmix_mega.training.engine.head_scores import VocabularyShard, preconditioner

FloatArray = NDArray[np.float64]
Named = dict[str, Tensor]

GROUPS = ("head", "body", "embedding", "all")
PAIRS = "token pairs"
"""The slope of the law of token pairs: the control."""
SCORES = (
    *(f"{group} {by}" for group in GROUPS for by in ("plain", "Adam")),
    "head Kronecker",
    PAIRS,
)
"""What `scores` returns, and the control."""
DAMPING = 0.1
"""Of Adam's root mean square, and of both factors of the curvature's mean."""


def group_of(name: str) -> str:
    return {HEAD: "head", EMBEDDING: "embedding"}.get(name, "body")


@dataclass(frozen=True)
class HeadCurvature:
    """The two factors."""

    inputs: Tensor
    """[d, d] second moment of the head's inputs."""
    outputs: Tensor
    """[V] mean of p (1 - p)."""

    def solve(self, gradient: Tensor) -> Tensor:
        """[V, d] the damped inverse's product with a gradient of the head."""
        width = len(self.inputs)
        ridge = DAMPING * self.inputs.trace() / width
        identity = torch.eye(width, dtype=self.inputs.dtype)
        rows = gradient / (self.outputs + DAMPING * self.outputs.mean())[:, None]
        return torch.linalg.solve(self.inputs + ridge * identity, rows.T).T


def mean_losses(model: PlainModel, sequences: Tensor, batch: int) -> float:
    """Mean loss over [n, s + 1] sequences, in nats per token."""
    total = 0.0
    with torch.no_grad():
        for part in sequences.split(batch):
            total += float(model.losses(part[:, :-1], part[:, 1:]).sum(dtype=torch.float64))
    return total / len(sequences)


def mean_gradient(model: PlainModel, sequences: Tensor, batch: int) -> Named:
    """The gradient of the mean loss over [n, s + 1] sequences, by parameter."""
    names, parameters = zip(*model.parameters.items(), strict=True)
    total: Named = {}
    for part in sequences.split(batch):
        loss = model.losses(part[:, :-1], part[:, 1:]).sum() / len(sequences)
        for name, gradient in zip(names, torch.autograd.grad(loss, parameters), strict=True):
            total[name] = total[name].add_(gradient) if name in total else gradient
    return total


@torch.no_grad()
def head_curvature(
    model: PlainModel, sources: Sequence[Tensor], mixture: FloatArray, batch: int
) -> HeadCurvature:
    """Over the mixture's tokens.

    Args:
        model: at the point.
        sources: per source [n, s + 1].
        mixture: [S] by which the sources' means are weighted.
        batch: sequences at a time.
    """
    head = model.parameters[HEAD]
    inputs = head.new_zeros(head.size(1), head.size(1))
    outputs = head.new_zeros(len(head))
    for sequences, share in zip(sources, mixture.tolist(), strict=True):
        weight = share / (len(sequences) * (sequences.size(1) - 1))
        for part in sequences.split(batch):
            hidden = model.hidden(part[:, :-1]).flatten(0, 1)  # [b * s, d]
            likely = functional.linear(hidden, head).softmax(-1)  # [b * s, V]
            inputs += weight * hidden.T @ hidden
            outputs += weight * (likely - likely.square()).sum(0)
    return HeadCurvature(inputs, outputs)


def adam_divisors(second_moments: Named) -> Named:
    """The product's preconditioner of every parameter.

    Args:
        second_moments: Adam's, corrected for bias.
    """
    return {
        name: preconditioner(moment, DAMPING, VocabularyShard(0, None))
        for name, moment in second_moments.items()
    }


def scores(
    model: PlainModel,
    second_moments: Named,
    sources: Sequence[Tensor],
    targets: Sequence[Tensor],
    mixture: FloatArray,
    batch: int,
) -> dict[str, FloatArray]:
    """[K, S] by name (`SCORES` without the control): positive ones say that a source helps.

    Args:
        model: at the point.
        second_moments: Adam's, corrected for bias, by parameter.
        sources: per source [n, s + 1] sequences.
        targets: per target [m, s + 1] sequences.
        mixture: [S] whose tokens the curvature is of.
        batch: sequences at a time.
    """
    wanted = [mean_gradient(model, sequences, batch) for sequences in targets]
    divisors = adam_divisors(second_moments)
    curvature = head_curvature(model, sources, mixture, batch)
    by_curvature = [curvature.solve(gradient[HEAD]) for gradient in wanted]
    found = {name: np.zeros((len(targets), len(sources))) for name in SCORES[:-1]}
    for source, sequences in enumerate(sources):
        gradient = mean_gradient(model, sequences, batch)
        for target, other in enumerate(wanted):
            for name, own in gradient.items():
                plain = inner(other[name], own)
                adam = inner(other[name] / divisors[name], own)
                for group in (group_of(name), "all"):
                    found[f"{group} plain"][target, source] += plain
                    found[f"{group} Adam"][target, source] += adam
            by = inner(by_curvature[target], gradient[HEAD])
            found["head Kronecker"][target, source] = by
    return found


def inner(first: Tensor, second: Tensor) -> float:
    return float((first * second).sum(dtype=torch.float64))
