"""Peak memory of one process by part, from the configuration alone: pure functions.

The formulas follow what DeepSpeed and megatron-core allocate; `benchmarks/plan_memory.py` compares
them with what torch measures. Two moments compete for the peak: the last micro-batch's backward
pass, with all activations alive, and the optimizer step, with its copies of the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from fastmix_mega.config.schema import Config
from fastmix_mega.config.sections import ParallelSection
from fastmix_mega.model.presets import ModelShape
from fastmix_mega.training.engine.head_scores import CHUNK_ELEMENTS
from fastmix_mega.training.engine.zero import reduction_bucket

BYTES_FP32, BYTES_BF16 = 4, 2
ZERO3_LIVE_PARAMETERS = 1_000_000_000
"""DeepSpeed keeps that many gathered parameters (`stage3_max_live_parameters`)."""
BF16_REDUCTION = 500_000_000
"""Numbers in the buffer by which DeepSpeed's BF16_Optimizer reduces gradients."""


@dataclass(frozen=True)
class Savings:
    """What fused kernels need less than plain ones."""

    fused_norm: bool
    """RMSNorm keeps one number a token instead of a normalised copy."""
    fused_swiglu: bool
    """SwiGLU keeps its input alone instead of three halves more."""


def savings_of(config: Config, cuda: bool) -> Savings:
    """Of the kernels that a run takes by `fastmix_mega.model.kernels`, on CUDA or without."""
    compiled = {"on": True, "off": False, "auto": cuda}[config.kernels.compile]
    return Savings(fused_norm=cuda, fused_swiglu=compiled)


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of one process."""

    parameters: float
    gradients: float
    optimizer: float
    """fp32 master weights and Adam's moments."""
    direction: float
    """v, the preconditioned target gradient, and every target's own where there are several."""
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
    work = _activations(config, shape, parallel, stage, in_flight, mode, savings)
    # ZeRO 2 makes its buffer anew in every backward pass.
    forward_buffers = 0 if parallel.zero == 2 else state.pass_buffers
    moments = [
        (state.gradients, work.body, work.forward_logits, forward_buffers),
        (state.gradients, work.body + work.layer, work.backward_logits, state.pass_buffers),
        (state.gradients_in_step, 0, 0, state.step_buffers),
        *_target_moments(config, work, state.gradients_kept, directions, measured, width),
    ]
    gradients, activations, logits, buffers = max(moments, key=sum)
    return Memory(
        parameters=state.parameters,
        gradients=gradients,
        optimizer=state.optimizer,
        direction=direction,
        activations=activations,
        logits=logits,
        buffers=buffers,
    )


def _target_moments(
    config: Config, work: _Work, kept: float, directions: int, measured: int, width: int
) -> list[tuple[float, float, float, float]]:
    """Of the pass over target sequences: gradients, activations, logits and buffers.

    Args:
        config: as for `peak_memory`.
        work: of one micro-batch.
        kept: bytes of the training's gradients.
        directions: gradients that are added up in fp32.
        measured: parameters.
        width: bytes of one of their numbers.
    """
    sums = kept + directions * BYTES_FP32 * measured
    if config.search.scores == "head":
        # One more is being added.
        return [(sums + BYTES_FP32 * measured, 0, work.forward_logits, 0)]
    # What a backward pass finds is added at its end, when its activations are gone.
    begin = (sums, work.body + work.layer, work.backward_logits, 0)
    return [begin, (sums + width * measured, 0, 0, 0)]


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


@dataclass(frozen=True)
class _Work:
    """Bytes that one process's micro-batches need."""

    body: float
    """The layers' saved activations, of all micro-batches under way."""
    forward_logits: float
    """Logits and what the scores copy of them, at the end of the forward pass."""
    backward_logits: float
    """Logits and the head's gradients; 0 if the last layer's backward pass needs more."""
    layer: float
    """What a layer's backward pass needs beside; 0 if the head needs more."""


def _activations(
    config: Config,
    shape: ModelShape,
    parallel: ParallelSection,
    stage: int,
    in_flight: int,
    mode: str,
    savings: Savings,
) -> _Work:
    train = config.train
    width = BYTES_BF16 if config.precision == "bf16" else BYTES_FP32
    tokens = train.micro_batch * train.seq_length // parallel.context
    layer = tokens * width * _saved_by_layer(shape, parallel, savings)
    backward = _layer_backward(shape, parallel, tokens, width)
    layers = shape.layers // parallel.pipeline
    residual = tokens * width * shape.hidden_size / _spread(parallel)

    # Interleaving keeps the activations of a few more chunks (Narayanan et al., 2021).
    chunks = parallel.pipeline * parallel.interleave
    more = 1 + (parallel.pipeline - 1) / chunks if parallel.interleave > 1 else 1
    if train.recompute == "full":
        body, backward = in_flight * more * layers * residual, backward + layer
    else:
        body = in_flight * more * layers * layer
    if stage == 0:
        body += in_flight * residual
    if stage != parallel.pipeline - 1:
        return _Work(body=body, forward_logits=0, backward_logits=0, layer=backward)

    # The last stage has the head too.
    body += 2 * residual
    logits = _head_backward(shape, parallel, tokens, width)
    scored = 0.0
    if mode == "search" and config.search.scores == "head":
        scored = _scored(config, shape, parallel, tokens, width)
    if logits > backward:
        return _Work(body=body, forward_logits=scored, backward_logits=logits, layer=0)
    return _Work(body=body, forward_logits=scored, backward_logits=0, layer=backward)


def _spread(parallel: ParallelSection) -> int:
    """Processes that share what stands between the matrices."""
    return parallel.tensor if parallel.sequence else 1


def _copied(parallel: ParallelSection, width: int) -> int:
    """Bytes for each number of the matrix whose gradient is being added up.

    DeepSpeed's bf16 optimizer does that in fp32 by way of an fp32 copy.
    """
    return BYTES_BF16 + BYTES_FP32 if width == BYTES_BF16 and parallel.zero == 1 else 0


def _saved_by_layer(shape: ModelShape, parallel: ParallelSection, savings: Savings) -> float:
    """Numbers a token that a layer keeps for its backward pass."""
    query, kv, tensor = shape.query_size, shape.key_value_size, parallel.tensor
    norms = (4 if savings.fused_norm else 6) * shape.hidden_size / _spread(parallel)
    if parallel.context == 1:
        # Queries, keys and values, the rotated queries and keys, and the output.
        attention = (3 * query + 3 * kv) / tensor
    else:
        # Every chunk of queries keeps a copy of the keys and values up to its own end.
        attention = (3 + 2 * parallel.context + 1) * query / tensor
    if shape.qk_norm:
        attention += (1 if savings.fused_norm else 2) * (query + kv) / tensor
    feed_forward = (3 if savings.fused_swiglu else 5) * shape.ffn_size / tensor
    return norms + attention + feed_forward


def _layer_backward(shape: ModelShape, parallel: ParallelSection, tokens: int, width: int) -> float:
    """Bytes that a layer's backward pass needs beside what was saved."""
    hidden, tensor = shape.hidden_size, parallel.tensor
    # Under sequence parallelism the whole input is gathered again beside its gradient.
    wholes = 2 if parallel.sequence else 1
    backward = tokens * width * (1.5 * shape.ffn_size / tensor + wholes * hidden)
    return backward + _copied(parallel, width) * 2 * shape.ffn_size * hidden / tensor


def _head_backward(shape: ModelShape, parallel: ParallelSection, tokens: int, width: int) -> float:
    """Bytes of the logits and of what the head's backward pass makes beside them."""
    hidden, tensor = shape.hidden_size, parallel.tensor
    matrix = shape.vocab_size * hidden / tensor
    table = tokens * shape.vocab_size / tensor
    # The loss works in place on fp32 logits; those of a bf16 head stay beside them. The head's
    # backward pass makes two gradients before the logits go.
    logits = table * (BYTES_FP32 if width == BYTES_FP32 else BYTES_FP32 + width)
    logits += matrix * width + tokens * width * hidden / _spread(parallel)
    # Later the head's gradient is copied so, while that of the logits is still there.
    wholes = 2 if parallel.sequence else 1
    copied = _copied(parallel, width) * matrix
    return max(logits, table * width + copied + wholes * tokens * width * hidden)


def _scored(
    config: Config, shape: ModelShape, parallel: ParallelSection, tokens: int, width: int
) -> float:
    """Bytes of the logits and of what the head's scores copy of them."""
    matrix = shape.vocab_size * shape.hidden_size / parallel.tensor
    table = tokens * shape.vocab_size / parallel.tensor
    # Probabilities and responses; a bf16 head's logits are made fp32 besides.
    copies = (2 if width == BYTES_FP32 else 2.5) * BYTES_FP32 * min(table, CHUNK_ELEMENTS)
    if config.separate_targets:
        # One sequence's own gradient, the part of it that a chunk adds, and its logits'.
        alone = table / config.train.micro_batch
        copies = max(copies, BYTES_FP32 * (2 * matrix + min(alone, CHUNK_ELEMENTS)))
    return table * width + copies
