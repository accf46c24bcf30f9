"""Weights that depend on the seed and the parameter's name alone, never on the layout.

Each parameter is drawn whole from a generator of its own (or read whole from other weights) and
then cut to this process's shard, so that one process and a thousand start from the same model.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from fastmix_mega.model.presets import ModelShape
from fastmix_mega.parallel.layout import Layout

EMBEDDING_NAME = "embedding.word_embeddings.weight"
HEAD_NAME = "output_layer.weight"


class Weights(Protocol):
    """Whole parameters by the names that this model has for them."""

    def read(self, name: str) -> Tensor:
        """On the CPU, in the dtype that they are stored in."""


@torch.no_grad()
def load_weights(model: nn.Module, shape: ModelShape, weights: Weights, layout: Layout) -> None:
    """Set every parameter of this process's part from whole ones."""
    for name, parameter in model.named_parameters():
        tied = shape.tie_embeddings and name == HEAD_NAME
        full = weights.read(EMBEDDING_NAME if tied else name)
        part = shard(name, full, layout.tensor.rank, layout.tensor.size)
        assert part.shape == parameter.shape, f"{name}: {part.shape} for {parameter.shape}"
        parameter.copy_(part)


@torch.no_grad()
def initialize_weights(
    model: nn.Module, shape: ModelShape, std: float, seed: int, layout: Layout
) -> None:
    """Set every parameter: norms to 1, biases to 0, matrices to N(0, std).

    The projections that write to the residual stream get std / sqrt(2 * layers) (GPT-2).
    """
    for name, parameter in model.named_parameters():
        if is_split_vector(name):
            parameter.zero_()
            parameter.tensor_model_parallel = True  # type: ignore[attr-defined]
            continue
        if parameter.dim() == 1:
            parameter.fill_(1.0)
            # Every tensor-parallel rank holds it; DeepSpeed's norm counts it on the marked one.
            parameter.model_parallel = layout.tensor.rank == 0  # type: ignore[attr-defined]
            continue
        writes_residual = is_row_parallel(name)
        # Without the mark DeepSpeed would count a shard's norm as a replicated parameter's.
        # (megatron-core's setter refuses what TransformerEngine has marked already.)
        parameter.tensor_model_parallel = True  # type: ignore[attr-defined]
        parameter.partition_dim = int(writes_residual)  # type: ignore[attr-defined]
        parameter.partition_stride = 1  # type: ignore[attr-defined]
        full_name = name
        if shape.tie_embeddings and name == HEAD_NAME:
            # The last pipeline stage's copy of the embedding.
            full_name = EMBEDDING_NAME
            parameter.ds_pipe_replicated = True  # type: ignore[attr-defined]
        scale = std / math.sqrt(2 * shape.layers) if writes_residual else std
        full = _draw(full_name, _full_shape(name, parameter, layout.tensor.size), seed)
        part = shard(name, full, layout.tensor.rank, layout.tensor.size)
        parameter.copy_(part.mul_(scale))


def is_row_parallel(name: str) -> bool:
    """Whether tensor parallelism cuts this matrix along its inputs."""
    return "linear_proj" in name or "linear_fc2" in name


def is_split_vector(name: str) -> bool:
    """Whether tensor parallelism cuts this vector: a bias of queries, keys and values."""
    return name.endswith("linear_qkv.bias")


def shard(name: str, full: Tensor, rank: int, size: int) -> Tensor:
    """This tensor-parallel rank's part of a whole parameter (or of what has its shape)."""
    if size == 1 or (full.dim() == 1 and not is_split_vector(name)):
        return full
    if is_row_parallel(name):
        return full.chunk(size, dim=1)[rank]
    if "linear_fc1" in name:
        # SwiGLU's gate and up halves are cut separately.
        gate, up = full.chunk(2)
        return torch.cat((gate.chunk(size)[rank], up.chunk(size)[rank]))
    return full.chunk(size)[rank]


def unshard(name: str, parts: Sequence[Tensor]) -> Tensor:
    """The whole from all tensor-parallel ranks' parts: the inverse of `shard`."""
    if len(parts) == 1 or (parts[0].dim() == 1 and not is_split_vector(name)):
        return parts[0]
    if is_row_parallel(name):
        return torch.cat(list(parts), dim=1)
    if "linear_fc1" in name:
        halves = [part.chunk(2) for part in parts]
        return torch.cat([gate for gate, _ in halves] + [up for _, up in halves])
    return torch.cat(list(parts))


def _full_shape(name: str, parameter: Tensor, size: int) -> tuple[int, int]:
    rows, columns = parameter.shape
    if is_row_parallel(name):
        return rows, columns * size
    return rows * size, columns


def _draw(name: str, shape: tuple[int, int], seed: int) -> Tensor:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    return torch.randn(shape, generator=generator)
