from __future__ import annotations

import numpy as np
import pytest

from fastmix_mega.config.sections import SearchSection
from fastmix_mega.data.sampler import MixtureSampler
from fastmix_mega.mixture.sampling import MixturePolicy, OuterSchedule


@pytest.mark.parametrize("exploration", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("block", [1, 4])
def test_weighted_sampling_has_the_mixtures_expectation(exploration: float, block: int) -> None:
    """Over many batches, a source's weighted count is mixture * B, whatever the law."""
    mixture = np.array([0.55, 0.3, 0.1, 0.05])
    policy = MixturePolicy(mixture, exploration)
    sampler = MixtureSampler(seed=3, source_count=4, global_batch=16, block=block)
    steps = 4000
    weighted = np.zeros(4)
    for step in range(steps):
        sources = sampler.draw(step, policy.law).sources
        weighted += np.bincount(sources, minlength=4) * policy.weights
    # Systematic draws of 16 / block places: at most one place of noise a batch and source.
    error = policy.weights * block * 0.5 / np.sqrt(steps)
    assert (np.abs(weighted / steps - mixture * 16) < 4 * error).all()


def test_outer_schedule() -> None:
    schedule = OuterSchedule.of(SearchSection(every=4, warmup=6), "fastmix", 20)
    assert [s for s in range(20) if schedule.measures_target(s)] == [6, 10, 14]
    assert [s for s in range(20) if schedule.updates_after(s)] == [9, 13, 17]
    assert schedule.outer_steps == 3


def test_after_token_pairs_the_last_half_is_scored() -> None:
    def first(from_pairs: bool, **given: int) -> int:
        search = SearchSection(every=4, **given)
        schedule = OuterSchedule.of(search, "fastmix", 100, from_pairs)
        return next(step for step in range(100) if schedule.measures_target(step))

    assert first(from_pairs=True) == 50
    assert first(from_pairs=False) == 24
    assert first(from_pairs=True, warmup=6) == first(from_pairs=False, warmup=6) == 6


def test_reference_scores_one_step() -> None:
    schedule = OuterSchedule.of(SearchSection(every=4, warmup=6), "reference", 20)
    assert [s for s in range(20) if schedule.updates_after(s)] == [6, 10, 14, 18]


@pytest.mark.parametrize("method", ["fastmix", "reference"])
@pytest.mark.parametrize("steps", [1, 9, 10, 13, 14, 10**11 + 10])
def test_outer_steps_are_counted_at_once(method: str, steps: int) -> None:
    schedule = OuterSchedule.of(SearchSection(every=4, warmup=6), method, steps)
    if steps < 100:
        assert schedule.outer_steps == sum(map(schedule.updates_after, range(steps)))
    else:
        assert schedule.outer_steps == 25 * 10**9 + 1
