"""The context law's loss, against cases that are known in closed form."""

import numpy as np
import torch

from research.judge.context_law import ContextLaw, laws_of
from research.judge.product import Features


def test_contexts_that_tell_the_source_leave_its_own_head_alone() -> None:
    random = np.random.default_rng(1)
    tokens = random.uniform(0.1, 1.0, (50, 2))
    own = np.eye(2)[random.integers(2, size=50)]
    law = ContextLaw(own, tokens)
    expected = -np.mean(np.log((own * tokens).sum(axis=1)))
    # Whatever the mixture: in such a context there is one source only.
    for share in (0.1, 0.5, 0.9):
        np.testing.assert_allclose(law.loss(np.array([share, 1 - share])), expected)


def test_contexts_that_tell_nothing_mix_the_heads() -> None:
    tokens = np.random.default_rng(2).uniform(0.1, 1.0, (50, 3))
    law = ContextLaw(np.full((50, 3), 1 / 3), tokens)
    mixture = np.array([0.2, 0.3, 0.5])
    np.testing.assert_allclose(law.loss(mixture), -np.mean(np.log(tokens @ mixture)))


def test_a_head_learns_the_tokens_of_its_source() -> None:
    hidden = torch.ones(2000, 4)
    sources = [(hidden, torch.full((2000,), number)) for number in range(2)]
    target = (hidden[:50], torch.zeros(50, dtype=torch.long))
    (law,) = laws_of(Features(sources, [target], torch.zeros(3, 4)))
    np.testing.assert_allclose(law.sources.sum(axis=1), 1, atol=1e-6)
    assert (law.tokens[:, 0] > 1 / 3).all()
    assert (law.tokens[:, 1] < 1 / 3).all()
