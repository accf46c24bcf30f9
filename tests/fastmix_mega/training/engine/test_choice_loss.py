"""Multiple choice: the loss and its slopes against torch's automatic derivatives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from fastmix_mega.config.sections import ParallelSection
from fastmix_mega.parallel import layout as parallel_layout
from fastmix_mega.parallel.layout import Layout
from fastmix_mega.training.engine.batches import MicroBatch
from fastmix_mega.training.engine.choice_loss import choice_loss, weigh_choices
from fastmix_mega.training.engine.head_meter import HeadMeter
from fastmix_mega.training.engine.hook_meter import HookMeter
from tests.fastmix_mega.training.engine.test_head_scores import (
    access_to,
    double_model,
    explicit,
    random_batch,
    set_direction,
)


@hypothesis.settings(deadline=None)
@given(st.integers(1, 5), st.integers(2, 6), st.integers(0, 10_000))
def test_slopes_are_derivatives(questions: int, choices: int, seed: int) -> None:
    losses = torch.rand(questions, choices, generator=torch.Generator().manual_seed(seed))
    losses = (20 * losses.double()).requires_grad_()
    wanted = -torch.log_softmax(-losses, 1)[:, 0]
    wanted.sum().backward()
    found = choice_loss(losses.detach().numpy())
    assert found.losses == pytest.approx(wanted.detach().numpy(), rel=1e-12)
    assert losses.grad is not None
    assert found.slopes == pytest.approx(losses.grad.numpy(), rel=1e-9, abs=1e-12)
    assert found.slopes.sum(axis=1) == pytest.approx(np.zeros(questions), abs=1e-12)


def test_right_answers_are_counted() -> None:
    found = choice_loss(np.array([[1.0, 2.0, 3.0], [2.0, 1.0, 3.0], [1.0, 1.0, 2.0]]))
    assert found.right.tolist() == [1.0, 0.0, 0.0]
    far = choice_loss(np.array([[1e4, 0.0]]))
    assert far.losses == pytest.approx([1e4])


@pytest.fixture(scope="module")
def layout() -> Iterator[Layout]:
    with parallel_layout.start(ParallelSection()) as started:
        yield started


@pytest.mark.parametrize("scores", ["head", "hooks:head"])
def test_gradient_of_questions(settings: dict[str, Any], layout: Layout, scores: str) -> None:
    """The weighted sequences' gradient is that of -log softmax over choices, which batches cut."""
    config, model = double_model(settings, layout, tied=False)
    generator = torch.Generator().manual_seed(3)
    batches = []
    for number in range(3):  # Six sequences: two questions with three choices.
        batch = random_batch(config, 40 + number)
        mask = torch.rand(batch.labels.shape, generator=generator) < 0.4
        mask[:, -1] = True
        batches.append(replace(batch, loss_mask=mask, documents=torch.zeros_like(batch.inputs)))

    def losses_of(model: Any, _number: int, batch: MicroBatch) -> torch.Tensor:
        positions = torch.arange(batch.inputs.size(1)).expand_as(batch.inputs)
        logits = model(batch.inputs, positions, None)
        own = functional.cross_entropy(
            logits.flatten(0, 1), batch.labels.flatten(), reduction="none"
        )
        assert batch.loss_mask is not None
        return (own.view(batch.labels.shape) * batch.loss_mask).sum(1) / batch.answers

    def shown(model: Any, number: int, batch: MicroBatch) -> torch.Tensor:
        # megatron-core's loss shows the observer the head's input.
        positions = torch.arange(batch.inputs.size(1)).expand_as(batch.inputs)
        model(batch.inputs, positions, None, labels=batch.labels)
        return losses_of(model, number, batch)

    losses = torch.cat([losses_of(model, 0, batch) for batch in batches])
    wanted = explicit(model, -torch.log_softmax(-losses.view(2, 3), 1)[:, 0].mean())
    weights, found = weigh_choices(losses.detach().numpy(), np.zeros(6, np.int64), [3])
    weighed = [
        replace(batch, weights=torch.from_numpy(weights[2 * n : 2 * n + 2]).float())
        for n, batch in enumerate(batches)
    ]
    expected = -torch.log_softmax(-losses.view(2, 3), 1)[:, 0]
    assert found[0].losses == pytest.approx(expected.detach().numpy())
    access = access_to(model, config, layout)
    meter = HeadMeter(access, 4) if scores == "head" else HookMeter(access, 4, scores)
    set_direction(meter, weighed, shown if scores == "head" else losses_of)
    (direction,) = meter._directions_by_name()[0].values()
    torch.testing.assert_close(direction, wanted["output_layer.weight"], rtol=1e-4, atol=1e-7)


def test_only_questions_are_weighed_anew() -> None:
    losses = np.array([9.0, 1.0, 2.0, 5.0, 1.0, 1.0, 7.0])
    weights, found = weigh_choices(losses, np.array([0, 1, 1, 1, 1, -1, -1]), [1, 2])
    assert np.isnan(weights).tolist() == [True, False, False, False, False, True, True]
    wanted = choice_loss(np.array([[1.0, 2.0], [5.0, 1.0]]))
    assert weights[1:5] == pytest.approx(wanted.slopes.ravel() / 2)
    assert found[1].right.tolist() == [1.0, 0.0]
