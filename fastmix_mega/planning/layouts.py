"""Choose a layout for a number of GPUs: which fit, and which should be the fastest.

The time is an estimate for ranking layouts, made of arithmetic at a fixed efficiency, the
pipeline's bubble and the bytes of `traffic` over two kinds of links; it is no promise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fastmix_mega.config.schema import Config
from fastmix_mega.config.sections import ParallelSection
from fastmix_mega.model.presets import ModelShape
from fastmix_mega.planning.activations import savings_of
from fastmix_mega.planning.memory import Memory, peak_memory
from fastmix_mega.planning.rules import valid_layouts
from fastmix_mega.planning.traffic import (
    Traffic,
    outer_traffic,
    step_traffic,
    target_passes,
)


@dataclass(frozen=True)
class Machine:
    """What the estimate of time assumes; the defaults are an H100 node with one link per GPU."""

    gpu_memory: float
    """Bytes per GPU."""
    gpus_per_node: int = 8
    flops: float = 989e12
    """Dense bf16 operations per second of one GPU."""
    efficiency: float = 0.45
    """Share of them that a step reaches without communication."""
    within_node: float = 300e9
    """Bytes per second of one GPU to its neighbours in the node (NVLink, as NCCL reaches it)."""
    between_nodes: float = 40e9
    """Bytes per second of one GPU to other nodes (400 Gb/s)."""
    reserve: float = 0.08
    """Share of the memory that is left to CUDA, NCCL and fragmentation."""

    @property
    def usable(self) -> float:
        return self.gpu_memory * (1 - self.reserve)


@dataclass(frozen=True)
class Plan:
    """One layout and what it needs."""

    parallel: ParallelSection
    memory: Memory
    step: Traffic
    outer: Traffic
    step_seconds: float
    """Estimated, for ranking."""
    outer_share: float
    """Estimated time of outer steps as a share of all; 0 for training."""


def forward_flops(shape: ModelShape, seq_length: int) -> float:
    """Of one token: matrix products (a multiply-add is 2) and causal attention."""
    matrices = shape.body_parameters + shape.vocab_size * shape.hidden_size
    return 2.0 * matrices + 2.0 * shape.layers * seq_length * shape.query_size


def plan_layouts(
    config: Config, shape: ModelShape, processes: int, mode: str, machine: Machine
) -> list[Plan]:
    """Every layout that can run, the fastest by the estimate first, whether it fits or not."""
    plans = [
        plan_layout(config, shape, parallel, processes, mode, machine)
        for parallel in _sensible(config, shape, processes, mode, machine)
    ]
    return sorted(plans, key=lambda plan: (plan.step_seconds, plan.parallel.zero))


def plan_layout(
    config: Config,
    shape: ModelShape,
    parallel: ParallelSection,
    processes: int,
    mode: str,
    machine: Machine,
) -> Plan:
    """What one layout needs."""
    memory = peak_memory(config, shape, parallel, processes, mode, savings_of(config, cuda=True))
    step = step_traffic(config, shape, parallel, processes)
    seconds = _step_seconds(config, shape, parallel, processes, machine, step)
    outer, share = Traffic(data=0, tensor=0, pipeline=0, context=0), 0.0
    if mode == "search":
        outer = outer_traffic(config, shape, parallel, processes)
        outer_seconds = _outer_seconds(config, shape, parallel, processes, machine, outer)
        share = outer_seconds / (outer_seconds + config.search.every * seconds)
    return Plan(parallel, memory, step, outer, seconds, share)


def _sensible(
    config: Config, shape: ModelShape, processes: int, mode: str, machine: Machine
) -> Iterator[ParallelSection]:
    """Valid layouts whose tensor-parallel group stays within a node, with sequence parallelism."""
    for parallel in valid_layouts(config, shape, processes, mode):
        within = parallel.tensor <= machine.gpus_per_node
        divided = machine.gpus_per_node % parallel.tensor == 0
        sequence = parallel.sequence or parallel.tensor == 1
        if within and divided and sequence:
            yield parallel


def _step_seconds(
    config: Config,
    shape: ModelShape,
    parallel: ParallelSection,
    processes: int,
    machine: Machine,
    traffic: Traffic,
) -> float:
    tokens = config.train.global_batch * config.train.seq_length
    flops = 3 * forward_flops(shape, config.train.seq_length) * tokens
    if config.train.recompute == "full":
        flops *= 4 / 3
    compute = flops * _imbalance(shape, parallel) / (processes * machine.flops * machine.efficiency)
    data = processes // (parallel.tensor * parallel.pipeline * parallel.context)
    micro_batches = config.train.global_batch // (config.train.micro_batch * data)
    bubble = (parallel.pipeline - 1) / (micro_batches * parallel.interleave)
    inside = compute + _link_seconds(parallel, processes, machine, traffic, data=False)
    return inside * (1 + bubble) + _link_seconds(parallel, processes, machine, traffic, data=True)


def _outer_seconds(
    config: Config,
    shape: ModelShape,
    parallel: ParallelSection,
    processes: int,
    machine: Machine,
    traffic: Traffic,
) -> float:
    tokens = config.search.target_batch * config.train.seq_length
    flops = target_passes(config) * forward_flops(shape, config.train.seq_length) * tokens
    compute = flops * _imbalance(shape, parallel) / (processes * machine.flops * machine.efficiency)
    data = processes // (parallel.tensor * parallel.pipeline * parallel.context)
    micro_batches = max(1, config.search.target_batch // (config.train.micro_batch * data))
    bubble = (parallel.pipeline - 1) / micro_batches
    links = _link_seconds(parallel, processes, machine, traffic, data=False)
    return (compute + links) * (1 + bubble) + _link_seconds(
        parallel, processes, machine, traffic, data=True
    )


def _imbalance(shape: ModelShape, parallel: ParallelSection) -> float:
    """Work of the last pipeline stage, which has the head too, over the stages' mean."""
    head = shape.vocab_size * shape.hidden_size
    body = shape.body_parameters
    return (body / parallel.pipeline + head) / ((body + head) / parallel.pipeline)


def _link_seconds(
    parallel: ParallelSection, processes: int, machine: Machine, traffic: Traffic, *, data: bool
) -> float:
    """Seconds on the links: of data parallelism, or of everything else.

    Processes are laid out with tensor parallelism innermost, then context, data and pipeline.
    """

    def seconds(sent: float, span: int) -> float:
        fast = min(span, processes) <= machine.gpus_per_node
        return sent / (machine.within_node if fast else machine.between_nodes)

    inner = parallel.tensor * parallel.context
    if data:
        return seconds(traffic.data, processes // parallel.pipeline)
    return (
        seconds(traffic.tensor, parallel.tensor)
        + seconds(traffic.context, inner)
        + seconds(traffic.pipeline, processes)
    )
