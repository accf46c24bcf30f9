"""An independent search in plain PyTorch: explicit gradients, torch's AdamW, no DeepSpeed.

It shares with the product only the data path, the initial weights and the megatron-core layers.
Every gradient is `torch.autograd.grad` of a loss written here; every formula of the rule is
written out again from its description.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fastmix_mega.config.schema import Config
from fastmix_mega.data.run_inputs import open_inputs
from fastmix_mega.data.sampler import MixtureSampler
from fastmix_mega.model.gpt import build_model
from fastmix_mega.model.kernels import choose
from fastmix_mega.model.presets import resolve_shape
from fastmix_mega.parallel import layout as parallel_layout
from fastmix_mega.parallel.layout import Layout
from fastmix_mega.training.engine.learning_rate import learning_rate


@dataclass
class Trajectory:
    loss: list[float] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)
    mixture: list[list[float]] = field(default_factory=list)
    target_scores: list[list[list[float]]] = field(default_factory=list)
    """[K][S] every source's score for every target by itself, all sequences looked at."""
    target_weights: list[list[float]] = field(default_factory=list)
    target_loss: list[list[float]] = field(default_factory=list)


def sequence_losses(model: Any, tokens: Tensor) -> Tensor:
    """[b] mean cross-entropy of each sequence, from the logits alone."""
    return token_losses(model, tokens).mean(1)


def set_loss(model: Any, target: Any, indices: Any) -> Tensor:
    """Mean loss of samples of a target: text, or multiple choice with the right choice first."""
    rows = target.read(indices)
    losses = token_losses(model, torch.from_numpy(rows.tokens))
    if target.choices == 1:
        assert rows.loss_mask is None
        return losses.mean()
    mask = torch.from_numpy(rows.loss_mask)
    likelihood = -(losses * mask).sum(1) / mask.sum(1)  # Of a token of the choice, as a logarithm.
    return -torch.log_softmax(likelihood.view(-1, target.choices), 1)[:, 0].mean()


def token_losses(model: Any, tokens: Tensor) -> Tensor:
    """[b, s] cross-entropy of every token."""
    inputs, labels = tokens[:, :-1], tokens[:, 1:]
    positions = torch.arange(inputs.size(1)).expand_as(inputs)
    logits = model(inputs, positions, None)  # [b, s, V]
    per_token = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return per_token.view(labels.shape)


def chosen_parameters(model: Any, scores: str) -> list[Tensor]:
    named = dict(model.named_parameters())
    if scores == "all":
        return list(named.values())
    tied = "output_layer.weight" not in named
    return [named["embedding.word_embeddings.weight" if tied else "output_layer.weight"]]


def head_only(model: Any, scores: str) -> bool:
    return scores == "head" and "output_layer.weight" not in dict(model.named_parameters())


def gradients(model: Any, loss_of: Callable[[], Tensor], scores: str) -> list[Tensor]:
    """Explicit gradients of a scalar; for the closed form with tied weights, the head's part only.

    The head's part is the whole gradient minus the one through a detached copy of the weight in
    the output layer.
    """
    parameters = chosen_parameters(model, scores)
    whole = torch.autograd.grad(loss_of(), parameters, materialize_grads=True)
    if not head_only(model, scores):
        return list(whole)
    original = model.shared_embedding_or_output_weight
    model.shared_embedding_or_output_weight = lambda: original().detach()
    try:
        through_input = torch.autograd.grad(loss_of(), parameters, materialize_grads=True)
    finally:
        model.shared_embedding_or_output_weight = original
    return [a - b for a, b in zip(whole, through_input, strict=True)]


def reference_search(config: Config) -> Trajectory:
    """Run the rule of the default method, one sequence's (or micro-batch's) gradient at a time.

    Targets are scored one by one from gradients of their own, never from the objective's.
    """
    with parallel_layout.start(config.parallel) as layout:
        return _search(config, layout)


def _search(config: Config, layout: Layout) -> Trajectory:
    inputs = open_inputs(config)
    shape = resolve_shape(config.model, inputs.tokenizer.vocab_size)
    train, search = config.train, config.search
    count = len(config.sources)
    model = build_model(config, shape, layout, choose(config, "train"))
    matrices = [p for p in model.parameters() if p.dim() > 1]
    norms = [p for p in model.parameters() if p.dim() == 1]
    options = train.optimizer
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": options.weight_decay}, {"params": norms}],
        betas=(options.beta1, options.beta2),
        eps=options.epsilon,
        weight_decay=0.0,
    )
    per_micro_batch = search.scores != "head"
    block = train.micro_batch if per_micro_batch else 1
    sampler = MixtureSampler(config.seed, count, train.global_batch, block)
    logits, scale = np.zeros(count), 0.0
    totals, counts = np.zeros(count), np.zeros(count)
    window_totals, window_counts = np.zeros(count), np.zeros(count)
    directions: list[list[Tensor]] = []
    targets = len(config.targets)
    outer_step = 0
    shares = np.array([target.weight for target in config.targets])
    shares = shares / shares.sum()
    own_totals, own_counts = np.zeros((2, targets, count))
    own_window_totals, own_window_counts = np.zeros((2, targets, count))
    given = search.target_reference
    target_reference: Any = (
        None if isinstance(given, str) else np.array([given[t.name] for t in config.targets])
    )
    next_shares = shares
    result = Trajectory()
    for step in range(train.steps):
        mixture = np.exp(logits) / np.exp(logits).sum()
        law = (1 - search.exploration) * mixture + search.exploration / count
        weights = mixture / law
        since = step - search.warmup_steps()
        if since >= 0 and since % search.every == 0:
            per_target = -(-search.target_batch // len(inputs.targets))
            looked_at = [
                (target, outer_step * size + np.arange(size))
                for target in inputs.targets
                for size in [max(1, per_target // target.choices) * target.choices]
            ]
            target_losses = [set_loss(model, *each).item() for each in looked_at]
            result.target_loss.append(target_losses)
            shares = next_shares
            result.target_weights.append(shares.tolist())
            if search.objective == "minimax":
                if target_reference is None:
                    target_reference = np.array(
                        [set_loss(model, each, np.arange(64)).item() for each in inputs.targets]
                    )
                raised = search.target_step * (np.array(target_losses) - target_reference)
                next_shares = shares * np.exp(raised) / (shares @ np.exp(raised))
            parameters = chosen_parameters(model, search.scores)
            divisors = []
            for parameter in parameters:
                moment = optimizer.state[parameter]["exp_avg_sq"] / (1 - options.beta2**step)
                divisors.append(moment.sqrt() + search.damping * moment.mean().sqrt() + 1e-8)
            # The objective's direction first, then each target's.
            directions = []
            for weights_of_targets in (shares, *np.eye(targets)):

                def target_loss(
                    looked_at: Any = looked_at, weights_: Any = weights_of_targets
                ) -> Tensor:
                    losses = [set_loss(model, *each) for each in looked_at]
                    return sum(float(w) * loss for w, loss in zip(weights_, losses, strict=True))

                found = gradients(model, target_loss, search.scores)
                directions.append([g / d for g, d in zip(found, divisors, strict=True)])
        draw = sampler.draw(step, law)
        tokens = np.stack(
            [
                inputs.sources[source].samples(np.array([index]))[0]
                for source, index in zip(draw.sources, draw.indices, strict=True)
            ]
        )
        batch = torch.from_numpy(tokens)
        if directions:
            size = train.micro_batch if per_micro_batch else 1
            for start in range(0, len(batch), size):
                part = batch[start : start + size]

                def own_loss(part: Tensor = part) -> Tensor:
                    return sequence_losses(model, part).mean()

                own = gradients(model, own_loss, search.scores)
                product, *by_target = [
                    sum(float((v * g).sum()) for v, g in zip(direction, own, strict=True))
                    for direction in directions
                ]
                window_totals[draw.sources[start]] += product
                window_counts[draw.sources[start]] += 1
                own_window_totals[:, draw.sources[start]] += by_target
                own_window_counts[:, draw.sources[start]] += 1
        losses = sequence_losses(model, batch)
        loss = (losses * torch.from_numpy(weights[draw.sources]).float()).mean()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(train.schedule, step, train.steps)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip)
        optimizer.step()
        result.loss.append(loss.item())
        if directions and (step + 1 - search.warmup_steps()) % search.every == 0:
            outer_step += 1
            totals = search.decay * totals + window_totals
            counts = search.decay * counts + window_counts
            window_totals, window_counts = np.zeros(count), np.zeros(count)
            own_totals = search.decay * own_totals + own_window_totals
            own_counts = search.decay * own_counts + own_window_counts
            own_window_totals, own_window_counts = np.zeros((2, targets, count))
            result.target_scores.append((own_totals / own_counts).tolist())
            scores = totals / counts
            scale = 0.9 * scale + 0.1 * np.abs(scores - scores.mean()).max()
            unbiased = scale / (1 - 0.9**outer_step)
            # The prior is the initial mixture: uniform, so log-weights of 0.
            logits = (1 - search.prior_strength) * logits
            size = 0.2 if search.step is None else search.step
            logits = logits + size * (scores - mixture @ scores) / unbiased
            result.scores.append(scores.tolist())
            result.mixture.append((np.exp(logits) / np.exp(logits).sum()).tolist())
    return result
