"""Which layouts can run, why the others cannot, and the nearest one that can: pure functions.

`fastmix check` tells a user before any process starts; `fastmix plan` lists what these rules allow.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from fastmix_mega.config.schema import Config
from fastmix_mega.config.sections import ParallelSection
from fastmix_mega.model.presets import ModelShape


def problems(
    parallel: ParallelSection, config: Config, shape: ModelShape | None, processes: int, mode: str
) -> list[str]:
    """Why a layout cannot run; empty if it can.

    Args:
        parallel: the layout, which may be another than the configuration's.
        config: everything else.
        shape: of the model; None leaves out what depends on it.
        processes: of the whole run.
        mode: `search` or `train`.
    """
    found = [
        *_processes(parallel, config, processes),
        *_sequence(parallel, config),
        *_zero(parallel, mode),
    ]
    if shape is not None:
        found += [*_tensor(parallel, shape), *_pipeline(parallel, config, shape, processes)]
    return found


def _processes(parallel: ParallelSection, config: Config, processes: int) -> Iterator[str]:
    model = parallel.tensor * parallel.pipeline * parallel.context
    if processes % model:
        yield (
            f"parallel: tensor x pipeline x context = {model} does not divide {processes} "
            f"process(es); start a multiple of {model}"
        )
        return
    train, data = config.train, processes // model
    unit = train.micro_batch * data
    if train.global_batch % unit:
        nearest = max(unit, round(train.global_batch / unit) * unit)
        yield (
            f"train.global_batch ({train.global_batch}) must be a multiple of train.micro_batch x "
            f"data-parallel ranks = {train.micro_batch} x {data}; {nearest} would work"
        )


def _tensor(parallel: ParallelSection, shape: ModelShape) -> Iterator[str]:
    for name, value in (
        ("attention_heads", shape.attention_heads),
        ("key_value_heads", shape.key_value_heads),
        ("ffn_size", shape.ffn_size),
        ("vocab_size", shape.vocab_size),
    ):
        if value % parallel.tensor:
            yield (
                f"parallel.tensor: {parallel.tensor} ranks cannot share model.{name} ({value}) "
                "evenly"
            )


def _pipeline(
    parallel: ParallelSection, config: Config, shape: ModelShape, processes: int
) -> Iterator[str]:
    stages, interleave = parallel.pipeline, parallel.interleave
    if stages == 1:
        if interleave > 1:
            yield "parallel.interleave needs parallel.pipeline > 2; set it to 1"
        return
    if shape.layers % (stages * interleave):
        chunks = f"{stages} stages" + (f" x {interleave} chunks" if interleave > 1 else "")
        yield f"parallel.pipeline: {chunks} cannot share model.layers ({shape.layers}) evenly"
    if parallel.zero > 1:
        yield (
            f"parallel.zero: stage {parallel.zero} reduces gradients in every backward pass, which "
            "the pipeline schedule cannot wait for (DeepSpeed fails or hangs); set it to 1"
        )
    if interleave == 1:
        return
    if stages == 2:
        yield (
            "parallel.interleave: with 2 stages the previous and the next stage are the same "
            "process, and their messages would be mixed up; set it to 1, or use 4 stages"
        )
    data = processes // (stages * parallel.tensor * parallel.context)
    micro_batches = config.train.global_batch // max(1, config.train.micro_batch * data)
    if micro_batches % stages:
        yield (
            f"parallel.interleave: {micro_batches} micro-batches a step must be a multiple of "
            f"parallel.pipeline ({stages}); change train.global_batch, or set it to 1"
        )


def _sequence(parallel: ParallelSection, config: Config) -> Iterator[str]:
    length = config.train.seq_length
    if parallel.context > 1 and length % (2 * parallel.context):
        yield (
            f"parallel.context: train.seq_length ({length}) must be a multiple of 2 x context = "
            f"{2 * parallel.context}"
        )
    if not parallel.sequence:
        return
    if parallel.tensor == 1:
        yield "parallel.sequence needs parallel.tensor > 1; set it to false"
    elif (length // parallel.context) % parallel.tensor:
        yield (
            f"parallel.sequence: {length // parallel.context} positions cannot be shared by "
            f"{parallel.tensor} tensor ranks; change train.seq_length, or set it to false"
        )


def _zero(parallel: ParallelSection, mode: str) -> Iterator[str]:
    if mode == "search" and parallel.zero == 3:
        yield (
            "parallel.zero: stage 3 shards the head away from the scores; a search runs with "
            "ZeRO stage 1 or 2"
        )


def valid_layouts(
    config: Config, shape: ModelShape, processes: int, mode: str
) -> Iterator[ParallelSection]:
    """Every layout that the rules allow, with sequence parallelism on where it can be."""
    divisors = [size for size in range(1, processes + 1) if processes % size == 0]
    for tensor, pipeline, context in itertools.product(divisors, repeat=3):
        if processes % (tensor * pipeline * context):
            continue
        chunks = [1] + [n for n in (2, 4) if pipeline > 2 and shape.layers % (pipeline * n) == 0]
        for interleave, zero, sequence in itertools.product(chunks, (1, 2, 3), (False, True)):
            parallel = config.parallel.model_copy(
                update={
                    "tensor": tensor,
                    "pipeline": pipeline,
                    "interleave": interleave,
                    "context": context,
                    "sequence": sequence,
                    "zero": zero,
                }
            )
            if not problems(parallel, config, shape, processes, mode):
                yield parallel


def nearest_layout(
    config: Config, shape: ModelShape, processes: int, mode: str
) -> ParallelSection | None:
    """The layout that can run and differs least from the configuration's; None if none can."""
    wanted = config.parallel

    def distance(parallel: ParallelSection) -> tuple[float, int]:
        sizes = ("tensor", "pipeline", "context", "interleave")
        factors = (getattr(parallel, name) / getattr(wanted, name) for name in sizes)
        far = sum(abs(math.log2(factor)) for factor in factors)
        other = (parallel.sequence != wanted.sequence) + abs(parallel.zero - wanted.zero)
        return far + 0.25 * other, parallel.zero

    return min(valid_layouts(config, shape, processes, mode), key=distance, default=None)


def as_yaml(parallel: ParallelSection) -> str:
    """A layout as a user writes it, without what is the default."""
    default = ParallelSection()
    parts = [
        f"{name}: {str(value).lower()}"
        for name, value in parallel.model_dump().items()
        if name == "zero" or value != getattr(default, name)
    ]
    return f"parallel: {{{', '.join(parts)}}}"
