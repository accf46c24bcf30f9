"""What a search costs beyond the training it contains, in floating-point operations."""

from __future__ import annotations

from fastmix_mega.config.schema import Config
from fastmix_mega.methods.choice import as_method
from fastmix_mega.model.presets import ModelShape


def cost_in_proxy_runs(
    config: Config,
    shape: ModelShape,
    outer_steps: int,
    steps: int | None = None,
    conversations: bool = False,
) -> float:
    """The search's operations over those of `fastmix train` with all of `train.steps`.

    Counts multiply-adds in matrix products as 2, a backward pass as twice its forward, and leaves
    out attention's products (the same share of training and of the target's forward).

    Args:
        config: of the search.
        shape: of its model.
        outer_steps: made.
        steps: made; by default all of them.
        conversations: whether the sources hold any.
    """
    body, head = _per_token(shape)
    train = config.train
    training = 3.0 * (body + head) * train.steps * train.global_batch
    forward = body + head
    if config.method == "odm":
        return 1.0
    if config.method == "doremi":
        # The reference's run, and its forward passes on what the proxy trains on.
        scored = outer_steps * train.global_batch
        return 2.0 + scored * forward / training
    if config.method == "aioli":
        return 1.0 + (outer_steps + 1) * config.search.target_batch * forward / training
    search = as_method(config).search
    target_sequences = outer_steps * search.target_batch
    scored = outer_steps * search.every * train.global_batch
    if config.method == "reference":
        scored = outer_steps * train.micro_batch
    by_target = search.target_scores if config.separate_targets else 0.0
    if search.scores == "head":
        extra = target_sequences * (body + 2 * head)
        # Each sequence's gradient is formed once more, for all targets together.
        extra += scored * head * search.scored_share(conversations) * (1 + by_target)
    else:
        passes = 2 if by_target else 1
        extra = passes * target_sequences * 3.0 * (body + head)
    trained = 1.0 if steps is None else steps / train.steps
    return trained + extra / training


def evaluation_in_proxy_runs(config: Config, shape: ModelShape, sequences: int) -> float:
    """The operations of forward passes of that many sequences, over those of a training run."""
    body, head = _per_token(shape)
    train = config.train
    training = 3.0 * (body + head) * train.steps * train.global_batch
    return sequences * (body + head) / training


def _per_token(shape: ModelShape) -> tuple[float, float]:
    """Operations of one token's forward pass: of the layers, and of the head."""
    return 2.0 * shape.body_parameters, 2.0 * shape.vocab_size * shape.hidden_size
