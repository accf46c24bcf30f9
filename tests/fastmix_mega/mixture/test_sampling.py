"""Sampling and loss weights together serve the mixture."""

from __future__ import annotations

import numpy as np
import pytest

from fastmix_mega.data.sampler import MixtureSampler
from fastmix_mega.mixture.sampling import MixturePolicy


@pytest.mark.parametrize("exploration", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("block", [1, 4])
def test_weighted_sampling_has_the_mixtures_expectation(exploration: float, block: int) -> None:
    """Over many batches, a source's weighted count is mixture * B, whatever the sampling."""
    mixture = np.array([0.55, 0.3, 0.1, 0.05])
    policy = MixturePolicy(mixture, exploration)
    sampler = MixtureSampler(seed=3, source_count=4, global_batch=16, block=block)
    steps = 4000
    weighted = np.zeros(4)
    for step in range(steps):
        sources = sampler.draw(step, policy.distribution).sources
        weighted += np.bincount(sources, minlength=4) * policy.loss_weights
    # Systematic draws of 16 / block places: at most one place of noise a batch and source.
    error = policy.loss_weights * block * 0.5 / np.sqrt(steps)
    assert (np.abs(weighted / steps - mixture * 16) < 4 * error).all()
