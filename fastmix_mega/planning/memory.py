"""Peak memory of one process by part, from the configuration alone: pure functions.

The formulas follow what DeepSpeed and megatron-core allocate; `benchmarks/plan_memory.py` compares
them with what torch measures. Three moments compete for the peak: the last micro-batch's backward
pass, with all activations alive; the optimizer step, with its copies of the gradient; and, in a
search, the pass over the targets, which adds their gradient up in fp32.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from fastmix_mega.config.schema import Config
from fastmix_mega.config.sections import ParallelSection
from fastmix_mega.model.presets import ModelShape
from fastmix_mega.planning.activations import (
    BYTES_BF16,
    BYTES_FP32,
    Savings,
    Work,
    activations_of,
)
from fastmix_mega.training.engine.zero import reduction_bucket

ZERO3_LIVE_PARAMETERS = 1_000_000_000
"""DeepSpeed keeps that many gathered parameters (`stage3_max_live_parameters`)."""
PRECONDITIONER_COPIES = 3
"""fp32 matrices while a preconditioner is made: Adam's moments as they are gathered from all
shares, corrected for bias, and their root."""
BF16_REDUCTION = 500_000_000
"""Numbers in the buffer by which DeepSpeed's BF16_Optimizer reduces gradients."""


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of one process."""

    parameters: float
    gradients: float
    optimizer: float
    """fp32 master weights and Adam's moments."""
    direction: float
    """v, the preconditioned target gradient, and every target's own where there are several; 0
    where the peak is in the pass over the targets, which makes them anew."""
    activations: float
    logits: float
    buffers: float
    """Reduction buckets, gathered parameters, the optimizer step's copies."""

    @property
    def total(self) -> float:
        return sum(getattr(self, field.name) for field in fields(self))


def peak_memory(
    config: Config,
    shape: ModelShape,
    parallel: ParallelSection,
    processes: int,
    mode: str,
    savings: Savings,
) -> Memory:
    """The peak of the process that needs most; of a pipeline, its first or its last stage.

    Args:
        config: as the method fixes it (`Method.config`); precision, batch sizes, recomputation and
            scores are read.
        shape: of the model.
        parallel: the layout, which may be another than the configuration's.
        processes: of the whole run; the layout must divide them.
        mode: `search` or `train`.
        savings: of the kernels.
    """
    stages = {0, parallel.pipeline - 1}
    found = (
        stage_memory(config, shape, parallel, processes, mode, savings, stage) for stage in stages
    )
    return max(found, key=lambda memory: memory.total)


def layer_parameters(shape: ModelShape, tensor: int) -> int:
    """Of one layer on one tensor-parallel process; the norms are held by each."""
    return shape.split_layer_parameters // tensor + shape.whole_layer_parameters


def stage_parameters(shape: ModelShape, parallel: ParallelSection, stage: int) -> int:
    """Of one process of a pipeline stage."""
    count = shape.layers // parallel.pipeline * layer_parameters(shape, parallel.tensor)
    matrix = shape.vocab_size * shape.hidden_size // parallel.tensor
    first, last = stage == 0, stage == parallel.pipeline - 1
    if last:
        count += shape.hidden_size
    if first and last:
        return count + matrix * (1 if shape.tie_embeddings else 2)
    return count + matrix * (first + last)


def stage_memory(
    config: Config,
    shape: ModelShape,
    parallel: ParallelSection,
    processes: int,
    mode: str,
    savings: Savings,
    stage: int,
) -> Memory:
    """As `peak_memory`, of a process of one pipeline stage."""
    width = BYTES_BF16 if config.precision == "bf16" else BYTES_FP32
    count = stage_parameters(shape, parallel, stage)
    shards = processes // (parallel.tensor * parallel.pipeline)
    data = shards // parallel.context
    micro_batches = config.train.global_batch // (config.train.micro_batch * data)
    state = _state(count, shards, width, parallel.zero, micro_batches)
    measured = measured_parameters(config, shape, parallel, stage) if mode == "search" else 0
    directions = 1 + config.separate_targets
    direction = directions * width * measured
    in_flight = min(micro_batches, parallel.pipeline - stage)
    work = activations_of(config, shape, parallel, stage, in_flight, mode, savings)
    # ZeRO 2 makes its buffer anew in every backward pass.
    forward_buffers = 0 if parallel.zero == 2 else state.pass_buffers
    training = [
        (state.gradients, work.body, work.forward_logits, forward_buffers),
        (state.gradients, work.body + work.layer, work.backward_logits, state.pass_buffers),
        (state.gradients_in_step, 0, 0, state.step_buffers),
    ]
    kept = (state.gradients_kept, forward_buffers)
    at_targets = _target_moments(config, work, kept, directions, measured, width)
    # The former direction is given up before the pass over the targets.
    moments = [(direction, *each) for each in training] + [(0.0, *each) for each in at_targets]
    held, gradients, activations, logits, buffers = max(moments, key=sum)
    return Memory(
        parameters=state.parameters,
        gradients=gradients,
        optimizer=state.optimizer,
        direction=held,
        activations=activations,
        logits=logits,
        buffers=buffers,
    )


def _target_moments(
    config: Config,
    work: Work,
    kept: tuple[float, float],
    directions: int,
    measured: int,
    width: int,
) -> list[tuple[float, float, float, float]]:
    """Of the pass over target sequences: gradients, activations, logits and buffers.

    Args:
        config: as for `peak_memory`.
        work: of one micro-batch.
        kept: bytes of the training's gradients and buffers.
        directions: gradients that are added up in fp32.
        measured: parameters.
        width: bytes of one of their numbers.
    """
    sums, buffers = kept[0] + directions * BYTES_FP32 * measured, kept[1]
    if config.search.scores == "head":
        # One more is being added; later the preconditioner is made of the second moments.
        moments = PRECONDITIONER_COPIES * BYTES_FP32 * measured * config.search.precondition
        return [
            (sums, 0, work.target_logits, buffers),
            (sums + BYTES_FP32 * measured, 0, work.target_gradient_logits, buffers),
            (sums, 0, 0, buffers + moments),
        ]
    # What a backward pass finds is added at its end, when its activations are gone.
    begin = (sums, work.body + work.layer, work.backward_logits, buffers)
    return [begin, (sums + width * measured, 0, 0, buffers)]


@dataclass(frozen=True)
class _State:
    """Bytes of what does not depend on the batch."""

    parameters: float
    optimizer: float
    gradients: float
    """While the last micro-batch is in its backward pass."""
    gradients_in_step: float
    pass_buffers: float
    reduction_buffers: float
    shard: float
    """fp32 bytes of this process's share of the gradient."""
    flattened: bool
    """Whether the step copies the share's gradient into one tensor."""
    gradients_kept: float = 0
    """Between two steps."""

    @property
    def step_buffers(self) -> float:
        """The larger one of the reduction's buffers and the update's."""
        update = self.shard * self.flattened
        return max(self.reduction_buffers, update)


def _state(count: int, shards: int, width: int, zero: int, micro_batches: int) -> _State:
    whole, shard = BYTES_FP32 * count, BYTES_FP32 * count / shards
    bucket = BYTES_FP32 * reduction_bucket(count)
    if zero == 3:
        live = width * min(count, ZERO3_LIVE_PARAMETERS)
        # Measured, not derived: gathered parameters, the reduction's and the partitions' buffers.
        in_pass, in_step = (2.0, 3.2) if width == BYTES_FP32 else (1.2, 2.2)
        parameters = width * count / shards
        gradients = shard if width == BYTES_FP32 else 0
        return _State(
            parameters=parameters,
            optimizer=3 * shard,
            gradients=0,
            gradients_in_step=0,
            pass_buffers=live + in_pass * bucket,
            reduction_buffers=live + in_step * bucket,
            shard=gradients,
            flattened=True,
        )
    if zero == 2:
        # Every backward pass reduces into the process's own share.
        in_pass = width / BYTES_FP32 * bucket
        reduced = bucket + shard / 2
        step_gradients = whole if width == BYTES_FP32 else shard
        return _State(
            parameters=width * count,
            optimizer=3 * shard,
            gradients=shard,
            gradients_in_step=step_gradients,
            pass_buffers=in_pass,
            reduction_buffers=reduced,
            shard=shard,
            flattened=True,
        )
    if width == BYTES_FP32:
        held = whole if micro_batches > 1 else 0
        return _State(
            parameters=whole,
            optimizer=3 * shard,
            gradients=held,
            gradients_in_step=whole,
            pass_buffers=bucket,
            reduction_buffers=bucket,
            shard=shard,
            flattened=True,
        )
    reduced = 1.5 * BYTES_FP32 * min(count, BF16_REDUCTION) if shards > 1 else 0
    # bf16 gradients are added to the fp32 ones one by one, as the backward pass makes them; these
    # stay for the whole run.
    return _State(
        parameters=width * count,
        optimizer=3 * shard,
        gradients=whole,
        gradients_in_step=whole,
        pass_buffers=0,
        reduction_buffers=reduced,
        shard=shard,
        flattened=False,
        gradients_kept=whole,
    )


def measured_parameters(
    config: Config, shape: ModelShape, parallel: ParallelSection, stage: int
) -> int:
    """Of one process of a pipeline stage: those whose gradients are compared."""
    assert config.search.scores is not None, "as given, where the method's own is needed"
    matrix = shape.vocab_size * shape.hidden_size // parallel.tensor
    last = stage == parallel.pipeline - 1
    if config.search.scores in ("head", "hooks:head"):
        return matrix if last else 0
    if config.search.scores == "body":
        return (shape.layers // parallel.pipeline) * layer_parameters(shape, parallel.tensor)
    return stage_parameters(shape, parallel, stage)
