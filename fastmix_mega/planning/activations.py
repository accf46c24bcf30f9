"""Bytes that one process's micro-batches need: activations, logits and what the scores copy."""

from __future__ import annotations

from dataclasses import dataclass

from fastmix_mega.config.schema import Config
from fastmix_mega.config.sections import ParallelSection
from fastmix_mega.model.presets import ModelShape
from fastmix_mega.training.engine.head_scores import CHUNK_ELEMENTS

BYTES_FP32, BYTES_BF16 = 4, 2


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
class Work:
    """Bytes that one process's micro-batches need."""

    body: float
    """The layers' saved activations, of all micro-batches under way."""
    forward_logits: float
    """Logits and what the scores copy of them, at the end of the forward pass."""
    backward_logits: float
    """Logits and the head's gradients; 0 if the last layer's backward pass needs more."""
    layer: float
    """What a layer's backward pass needs beside; 0 if the head needs more."""
    target_logits: float = 0
    """Logits of target sequences, and what is made of them until their gradient is there."""
    target_gradient_logits: float = 0
    """These and their gradient, while the head's gradient is made of it."""


def activations_of(
    config: Config,
    shape: ModelShape,
    parallel: ParallelSection,
    stage: int,
    in_flight: int,
    mode: str,
    savings: Savings,
) -> Work:
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
        return Work(body=body, forward_logits=0, backward_logits=0, layer=backward)

    # The last stage has the head too.
    body += 2 * residual
    logits = _head_backward(shape, parallel, tokens, width)
    scored = target = before = 0.0
    if mode == "search" and config.search.scores == "head":
        scored = _scored(config, shape, parallel, tokens, width)
        table = tokens * shape.vocab_size / parallel.tensor
        # The gradient of the logits; a bf16 head's logits are made fp32 before.
        gradient = BYTES_FP32 * min(table, CHUNK_ELEMENTS)
        target = table * width + gradient
        before = target + (0 if width == BYTES_FP32 else gradient)
    if logits > backward:
        backward = 0
    else:
        logits = 0
    return Work(
        body=body,
        forward_logits=scored,
        backward_logits=logits,
        layer=backward,
        target_logits=before,
        target_gradient_logits=target,
    )


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
    looked_at = table * config.search.scored_share(False)
    copies = (2 if width == BYTES_FP32 else 2.5) * BYTES_FP32 * min(looked_at, CHUNK_ELEMENTS)
    if config.separate_targets:
        # One sequence's own gradient, the part of it that a chunk adds, and its logits'.
        alone = looked_at / config.train.micro_batch
        copies = max(copies, BYTES_FP32 * (2 * matrix + min(alone, CHUNK_ELEMENTS)))
    return table * width + copies
