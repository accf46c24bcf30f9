"""Multiple choice: the loss and its slopes against torch's automatic derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmix_mega.engine.choices import choice_loss


@settings(deadline=None)
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
