"""The closed form at the head against explicit gradients, in fp64, through a real model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from fastmix_mega.config.schema import Config
from fastmix_mega.config.sections import ParallelSection
from fastmix_mega.configuration import parse_config
from fastmix_mega.model.gpt import ProxyModel, build_model
from fastmix_mega.model.kernels import choose
from fastmix_mega.model.presets import resolve_shape
from fastmix_mega.parallel import layout as parallel_layout
from fastmix_mega.parallel.layout import Layout
from fastmix_mega.training.engine import head_scores
from fastmix_mega.training.engine.batches import MicroBatch
from fastmix_mega.training.engine.head_meter import HeadMeter
from fastmix_mega.training.engine.head_scores import VocabularyShard
from fastmix_mega.training.engine.hook_meter import HookMeter
from fastmix_mega.training.engine.meters import GradientAccess
from fastmix_mega.training.engine.passes import WholePasses

WHOLE = VocabularyShard(0, None)


@pytest.fixture(scope="module")
def layout() -> Iterator[Layout]:
    with parallel_layout.start(ParallelSection()) as started:
        yield started


def double_model(settings: dict[str, Any], layout: Layout, tied: bool) -> tuple[Config, Any]:
    settings["model"]["tie_embeddings"] = tied
    settings["search"] |= {"precondition": False, "target_scores": 1.0}
    config = parse_config(settings)
    shape = resolve_shape(config.model, 300)
    model = build_model(config, shape, layout, choose(config, "search")).double()
    return config, model


def random_batch(config: Config, seed: int, source: int = 0) -> MicroBatch:
    generator = torch.Generator().manual_seed(seed)
    shape = (config.train.micro_batch, config.train.seq_length + 1)
    return MicroBatch(
        tokens=torch.randint(300, shape, generator=generator),
        sources=torch.full((shape[0],), source),
        weights=torch.tensor([0.7, 1.3])[: shape[0]],
    )


def exact_losses(model: ProxyModel, batch: MicroBatch) -> torch.Tensor:
    """[b] from the logits, in fp64 (megatron's own loss rounds to fp32)."""
    positions = torch.arange(batch.inputs.size(1)).expand_as(batch.inputs)
    logits = model(batch.inputs, positions, None)
    per_token = functional.cross_entropy(
        logits.flatten(0, 1), batch.labels.flatten(), reduction="none"
    )
    return per_token.view(batch.labels.shape).mean(1)


class PlainPasses(WholePasses):
    """A model without a DeepSpeed engine around it: nothing trains."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._module = model


def access_to(model: Any, config: Config, layout: Layout) -> GradientAccess:
    nothing: Any = None  # Gradients are compared without a preconditioner.
    return GradientAccess(model, nothing, PlainPasses(model), config, layout)


def megatron_losses(model: Any, _number: int, batch: MicroBatch) -> torch.Tensor:
    positions = torch.arange(batch.inputs.size(1)).expand_as(batch.inputs)
    return model(batch.inputs, positions, None, labels=batch.labels).mean(1)


def exact_forward(model: Any, _number: int, batch: MicroBatch) -> torch.Tensor:
    return exact_losses(model, batch)


def set_direction(
    meter: HeadMeter | HookMeter,
    batches: list[MicroBatch],
    losses: Any,
    shares: torch.Tensor | None = None,
) -> None:
    shares = torch.ones(2) if shares is None else shares
    meter.set_direction(0, batches, shares, losses, losses)


def explicit(model: ProxyModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    named = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), materialize_grads=True)
    return dict(zip(named, found, strict=True))


def test_closed_form_equals_explicit_gradients(settings: dict[str, Any], layout: Layout) -> None:
    """Target gradient and per-sequence scores at an untied head, 1e-6 relative."""
    config, model = double_model(settings, layout, tied=False)
    meter = HeadMeter(access_to(model, config, layout), source_count=4)
    target = replace(random_batch(config, 1), weights=torch.tensor([0.25, 0.75]))
    weights = target.weights.double()
    set_direction(meter, [target], megatron_losses)
    gradient = meter._direction
    assert gradient is not None
    wanted = explicit(model, (exact_losses(model, target) * weights).sum())["output_layer.weight"]
    # The target's gradient is accumulated in fp32, whatever the model's precision.
    torch.testing.assert_close(gradient.double(), wanted, rtol=1e-5, atol=1e-8)

    direction, *others = torch.randn(3, *wanted.shape, dtype=torch.float64)
    meter._direction, meter._target_directions = direction, others
    meter.begin_step(0, 3)
    for number, source in enumerate((2, 0, 2)):
        batch = random_batch(config, 10 + number, source)
        meter.before_forward(number, batch)
        loss = (megatron_losses(model, number, batch) * batch.weights).sum()
        loss.backward()
    meter.end_step([], 1.0)
    total, square, count, _ = meter.sums.take(lambda sums: sums)
    products = {0: [], 2: []}
    by_target = np.zeros((2, 4))
    for number, source in enumerate((2, 0, 2)):
        batch = random_batch(config, 10 + number, source)
        for k in range(len(batch.sources)):
            own = explicit(model, exact_losses(model, batch)[k])["output_layer.weight"]
            products[source].append(float((own * direction).sum()))
            by_target[:, source] += [float((own * other).sum()) for other in others]
    for source, values in products.items():
        assert total[source] == pytest.approx(sum(values), rel=1e-6)
        assert square[source] == pytest.approx(sum(v * v for v in values), rel=1e-6)
        assert count[source] == len(values)
    assert count[1] == count[3] == 0
    own_total, _, own_count, _ = meter.target_sums.take(lambda sums: sums).reshape(4, 2, 4)
    assert own_total == pytest.approx(by_target, rel=1e-6)
    assert own_count.tolist() == [count.tolist()] * 2


def test_each_target_has_a_gradient_of_its_own(settings: dict[str, Any], layout: Layout) -> None:
    """Of a micro-batch with both targets, one with the second, and padding that weighs nothing."""
    config, model = double_model(settings, layout, tied=False)
    mixed = replace(random_batch(config, 1), sources=torch.tensor([0, 1]))
    padded = replace(random_batch(config, 2, 1), weights=torch.tensor([0.8, 0.0]))
    shares = torch.tensor([0.9, 0.1])
    wanted = []
    for target in (0, 1):
        loss = sum(
            (exact_losses(model, batch) * batch.weights * (batch.sources == target)).sum()
            for batch in (mixed, padded)
        )
        wanted.append(explicit(model, loss)["output_layer.weight"])
    head = HeadMeter(access_to(model, config, layout), 4)
    set_direction(head, [mixed, padded], megatron_losses, shares)
    hooks = HookMeter(access_to(model, config, layout), 4, "hooks:head")
    set_direction(hooks, [mixed, padded], exact_forward, shares)
    for meter, found in (
        (head, head._target_directions),
        (hooks, [each for (each,) in hooks._target_directions]),
    ):
        whole = meter._directions_by_name()[0].popitem()[1]
        torch.testing.assert_close(
            whole, sum(s * w for s, w in zip(shares, wanted, strict=True)), rtol=1e-4, atol=1e-7
        )
        for direction, gradient in zip(found, wanted, strict=True):
            torch.testing.assert_close(direction, gradient, rtol=1e-4, atol=1e-7)


def test_target_turns_are_a_share_under_every_layout(
    settings: dict[str, Any], layout: Layout
) -> None:
    """The same micro-batches of the run on one and on two data-parallel ranks; every n-th one."""
    _, model = double_model(settings, layout, tied=False)
    settings["search"]["target_scores"] = 0.25
    config = parse_config(settings)
    chosen: dict[int, set[int]] = {1: set(), 2: set()}
    for size in (1, 2):
        for rank in range(size):
            place = replace(layout, data=replace(layout.data, rank=rank, size=size))
            meter = HeadMeter(access_to(model, config, place), 4)
            for step in range(8):
                meter.begin_step(step, 4 // size)
                meter._measured = 4 // size
                chosen[size] |= {
                    meter._index(number)
                    for number in range(4 // size)
                    if meter._scores_targets(number)
                }
    assert chosen[1] == chosen[2]
    assert len(chosen[1]) == 8
    assert len({index % 4 for index in chosen[1]}) == 4


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("scores", ["all", "body", "hooks:head", "layers.1.*linear_fc"])
def test_hooks_equal_explicit_gradients(
    settings: dict[str, Any], layout: Layout, tied: bool, scores: str
) -> None:
    """Any set of parameters, with accumulation and unequal weights, 1e-6 relative."""
    config, model = double_model(settings, layout, tied)
    meter = HookMeter(access_to(model, config, layout), 4, scores)
    parameters = meter._products.parameters
    assert parameters
    generator = torch.Generator().manual_seed(3)
    directions = [
        torch.randn(p.shape, dtype=torch.float64, generator=generator) for p in parameters
    ]
    meter._directions = directions
    wanted = {1: 0.0, 3: 0.0}
    scale = 1 / 6
    batches = []
    meter.begin_step(0, 3)
    for number, source in enumerate((1, 3, 1)):
        batch = random_batch(config, 20 + number, source)
        weight = 0.5 + number
        batch = MicroBatch(batch.tokens, batch.sources, torch.full((2,), weight))
        batches.append(batch)
        meter.before_forward(number, batch)
        # A backward through fp64 losses: megatron's own would round the gradient to fp32.
        ((exact_losses(model, batch) * weight).sum() * scale).backward()
    meter.end_step(batches, scale)
    for batch in batches:
        own = torch.autograd.grad(
            exact_losses(model, batch).mean(), parameters, materialize_grads=True
        )
        product = sum(float((v * g).sum()) for v, g in zip(directions, own, strict=True))
        wanted[int(batch.sources[0])] += product
    total, _, count, _ = meter.sums.take(lambda sums: sums)
    assert total[1] == pytest.approx(wanted[1], rel=1e-6)
    assert total[3] == pytest.approx(wanted[3], rel=1e-6)
    assert count.tolist() == [0, 2, 0, 1]


def test_target_gradient_of_hooks(settings: dict[str, Any], layout: Layout) -> None:
    """It equals the explicit one, and leaves no trace in `.grad`."""
    config, model = double_model(settings, layout, tied=True)
    meter = HookMeter(access_to(model, config, layout), 4, "all")
    target = replace(random_batch(config, 5), weights=torch.tensor([0.4, 0.6]))
    weights = target.weights.double()
    set_direction(meter, [target], exact_forward)
    wanted = explicit(model, (exact_losses(model, target) * weights).sum())
    assert meter._directions is not None
    for direction, gradient in zip(meter._directions, wanted.values(), strict=True):
        torch.testing.assert_close(direction, gradient, rtol=1e-4, atol=1e-7)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_vocabulary_shards_add_up() -> None:
    """Sums over shards of the vocabulary equal the whole, computed shard by shard."""
    torch.manual_seed(0)
    logits = torch.randn(6, 10, dtype=torch.float64)
    labels = torch.randint(10, (6,))
    whole = head_scores.logit_gradient(logits, labels, WHOLE)
    probabilities = logits.softmax(-1)
    torch.testing.assert_close(whole, probabilities - functional.one_hot(labels, 10))


def test_precondition_formula() -> None:
    gradient = torch.tensor([[1.0, -2.0], [3.0, 0.0]], dtype=torch.float64)
    moment = torch.tensor([[4.0, 0.0], [1.0, 11.0]], dtype=torch.float64)
    found = gradient / head_scores.preconditioner(moment, 0.5, WHOLE)
    root = 2.0  # of the mean 4
    wanted = gradient / (moment.sqrt() + 0.5 * root + 1e-8)
    torch.testing.assert_close(found, wanted)


def test_scored_tokens_are_a_share(settings: dict[str, Any], layout: Layout) -> None:
    """Every token is looked at equally often as the start moves on."""
    settings["search"]["score_tokens"] = 0.25
    config, model = double_model(settings, layout, tied=False)
    meter = HeadMeter(access_to(model, config, layout), 4)
    batch = random_batch(config, 0)
    chosen = [meter._tokens(batch, number) for number in range(4)]
    positions = torch.arange(16)
    looked_at = [token for tokens, _ in chosen for token in positions[tokens].tolist()]
    assert sorted(looked_at) == list(range(16))
    assert [count for _, count in chosen] == [4] * 4


def test_by_default_all_tokens_of_conversations_and_an_eighth_of_texts(
    settings: dict[str, Any], layout: Layout
) -> None:
    settings["search"]["score_tokens"] = None
    config, model = double_model(settings, layout, tied=False)
    meter = HeadMeter(access_to(model, config, layout), 4)
    text = random_batch(config, 0)
    assert meter._tokens(text, 0)[1] == 2
    chats = replace(text, loss_mask=torch.ones(text.labels.shape, dtype=torch.bool))
    assert meter._tokens(chats, 0)[1] == 16
