"""Bytes that one process sends per training step and per outer step: pure functions.

A ring over n processes sends 2 (n - 1) / n of the tensor for an all-reduce, and half of that for a
gather or a scatter.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from fastmix_mega.config.schema import Config
from fastmix_mega.config.sections import ParallelSection
from fastmix_mega.model.presets import ModelShape
from fastmix_mega.planning.activations import BYTES_BF16, BYTES_FP32
from fastmix_mega.planning.memory import measured_parameters, stage_parameters


@dataclass(frozen=True)
class Traffic:
    """Bytes sent by the busiest process, by the kind of parallelism that sends them."""

    data: float
    """Gradients and ZeRO's parameters."""
    tensor: float
    pipeline: float
    context: float

    @property
    def total(self) -> float:
        return sum(getattr(self, field.name) for field in fields(self))


def step_traffic(
    config: Config, shape: ModelShape, parallel: ParallelSection, processes: int
) -> Traffic:
    """Of one training step."""
    width = _width(config)
    shards = processes // (parallel.tensor * parallel.pipeline)
    micro_batches = _micro_batches(config, parallel, processes)
    passes = 4 if config.train.recompute == "full" else 3
    forward = _forward(config, shape, parallel)
    count = max(stage_parameters(shape, parallel, stage) for stage in (0, parallel.pipeline - 1))
    half = (shards - 1) / shards * count
    if parallel.zero == 1:
        # Gradients are all-reduced in fp32 once a step; updated parameters are gathered.
        data = half * (2 * BYTES_FP32 + width)
    elif parallel.zero == 2:
        data = half * (micro_batches * width + width)
    else:
        data = half * width * 3 * micro_batches
    # A backward pass moves as much as a forward pass; recomputation adds another.
    rounds = micro_batches * (passes - 1)
    return Traffic(
        data=data,
        tensor=forward.tensor * rounds,
        pipeline=forward.pipeline * micro_batches * 2,
        context=forward.context * rounds,
    )


def outer_traffic(
    config: Config, shape: ModelShape, parallel: ParallelSection, processes: int
) -> Traffic:
    """Of one outer step: the passes over the targets and the sum of their gradient.

    The scores and the mixture are a few numbers a source.

    Args:
        config: as the method fixes it (`Method.config`).
        shape: of the model.
        parallel: the layout.
        processes: of the whole run.
    """
    shards = processes // (parallel.tensor * parallel.pipeline)
    data = shards // parallel.context
    batches = max(1, config.search.target_batch // (config.train.micro_batch * data))
    forward = _forward(config, shape, parallel)
    ends = (0, parallel.pipeline - 1)
    count = max(measured_parameters(config, shape, parallel, stage) for stage in ends)
    reduced = 2 * (shards - 1) / shards * count * BYTES_FP32
    # A backward pass moves as much as a forward pass; recomputation adds another.
    rounds, directions = max(1, target_passes(config) - 1), min(2, target_passes(config))
    return Traffic(
        data=reduced,
        tensor=forward.tensor * batches * rounds,
        pipeline=forward.pipeline * batches * directions,
        context=forward.context * batches * rounds,
    )


def target_passes(config: Config) -> int:
    """Work of a look at the targets, in forward passes: the closed form at the head needs one,
    other gradients a backward pass too, and the recomputation for it."""
    if config.search.scores == "head":
        return 1
    return 4 if config.train.recompute == "full" else 3


def _forward(config: Config, shape: ModelShape, parallel: ParallelSection) -> Traffic:
    """Of one micro-batch's forward pass through one stage; `data` is 0."""
    width = _width(config)
    tokens = config.train.micro_batch * config.train.seq_length // parallel.context
    hidden, kv = shape.hidden_size, shape.key_value_size
    layers = shape.layers / parallel.pipeline
    residual = tokens * hidden * width
    # Attention and feed-forward end in an all-reduce each, or in a scatter and a gather; the
    # embedding is one more.
    ring = 2 * (parallel.tensor - 1) / parallel.tensor
    tensor = ring * residual * (2 * layers + 1)
    spread = parallel.tensor if parallel.sequence else 1
    pipeline = residual / spread * parallel.interleave if parallel.pipeline > 1 else 0
    others = parallel.context - 1
    context = others * tokens * 2 * kv / parallel.tensor * width * layers
    return Traffic(data=0, tensor=tensor, pipeline=pipeline, context=context)


def _micro_batches(config: Config, parallel: ParallelSection, processes: int) -> int:
    data = processes // (parallel.tensor * parallel.pipeline * parallel.context)
    return config.train.global_batch // (config.train.micro_batch * data)


def _width(config: Config) -> int:
    return BYTES_BF16 if config.precision == "bf16" else BYTES_FP32
