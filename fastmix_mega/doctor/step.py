"""A few steps of the user's own configuration on random tokens: memory, speed, and the plan's word.

The data need not be there if `model.vocab_size` is given. Nothing is written.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from fastmix_mega.config.schema import Config
from fastmix_mega.model.presets import ModelShape
from fastmix_mega.parallel.layout import Layout
from fastmix_mega.planning.activations import savings_of
from fastmix_mega.planning.dry_run import method_that_runs, observed
from fastmix_mega.planning.layouts import forward_flops
from fastmix_mega.planning.memory import stage_memory
from fastmix_mega.training.engine.batches import MicroBatch
from fastmix_mega.training.engine.engine import TrainingEngine

PEAK_FLOPS = {
    "H100": 989e12,
    "H200": 989e12,
    "H800": 989e12,
    "GH200": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
    "A10": 125e12,
    "L4": 121e12,
    "V100": 125e12,
}
"""Dense bf16 operations a second (fp16 on V100), by a word of the GPU's name."""
STEPS = 4
"""The first ones are not measured: kernels are compiled, and memory is set aside."""


def measure(config: Config, shape: ModelShape, layout: Layout, mode: str) -> dict[str, Any]:
    """Peak memory against the plan's, tokens a second, MFU. Collective."""
    method, mode = method_that_runs(config, mode)
    config = method.config
    on_cuda = layout.device.type == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    engine = TrainingEngine(config, shape, layout, len(config.sources), observed(method))
    random = torch.Generator().manual_seed(layout.data.rank)
    target_seconds, seconds = 0.0, []
    for step in range(STEPS):
        if step == STEPS - 1 and engine.meter is not None:
            target_seconds = _timed(layout, lambda: _look_at_targets(engine, config, shape, random))
        batches = _batches(config, shape, layout, random, engine.micro_batches_per_step)
        seconds.append(_timed(layout, lambda: engine.train_step(step, batches)))  # noqa: B023
    peak = torch.cuda.max_memory_allocated() if on_cuda else 0
    savings = savings_of(config, on_cuda)
    plan = stage_memory(
        config, shape, config.parallel, layout.world_size, mode, savings, layout.pipeline.rank
    )
    engine.release()
    tokens = config.train.global_batch * config.train.seq_length
    rate = tokens / min(seconds[1:])
    return {
        "kernels": str(engine.kernels),
        "step_seconds": [round(each, 4) for each in seconds],
        "tokens_per_second": rate,
        "mfu": _utilisation(config, shape, layout, rate),
        "outer_step_seconds": target_seconds,
        "overhead": target_seconds / (config.search.every * min(seconds[1:])),
        "peak_bytes": peak,
        "planned_bytes": plan.total,
        "planned_parts": vars(plan),
    }


def _timed(layout: Layout, action: Any) -> float:
    def wait() -> None:
        if layout.device.type == "cuda":
            torch.cuda.synchronize()

    wait()
    begun = time.perf_counter()
    action()
    wait()
    return time.perf_counter() - begun


def _batches(
    config: Config, shape: ModelShape, layout: Layout, random: torch.Generator, count: int
) -> list[MicroBatch]:
    """Random tokens; every micro-batch holds one source."""
    train = config.train
    size = (train.micro_batch, train.seq_length + 1)
    return [
        MicroBatch(
            torch.randint(shape.vocab_size, size, generator=random).to(layout.device),
            torch.full((size[0],), number % len(config.sources)).to(layout.device),
            torch.ones(size[0]).to(layout.device),
        )
        for number in range(count)
    ]


def _look_at_targets(
    engine: TrainingEngine, config: Config, shape: ModelShape, random: torch.Generator
) -> None:
    layout, targets = engine.layout, len(config.targets)
    unit = config.train.micro_batch * layout.data.size
    group = layout.pipeline.size if layout.sizes["interleave"] > 1 else 1
    count = -(-max(1, config.search.target_batch // unit) // group) * group
    batches = [
        MicroBatch(each.tokens, each.sources % targets, each.weights / len(each.weights))
        for each in _batches(config, shape, layout, random, count)
    ]
    engine.measure_target(STEPS - 1, batches, np.ones(targets), [1] * targets)


def _utilisation(
    config: Config, shape: ModelShape, layout: Layout, tokens_per_second: float
) -> float | None:
    """Share of the GPUs' dense bf16 arithmetic that the model's own products are; None unknown."""
    if layout.device.type != "cuda":
        return None
    name = torch.cuda.get_device_name()
    peak = next((flops for word, flops in PEAK_FLOPS.items() if word in name), None)
    if peak is None:
        return None
    flops = 3 * forward_flops(shape, config.train.seq_length) * tokens_per_second
    return flops / (layout.world_size * peak)
