from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays

from fastmix_mega.data.sampler import MixtureSampler, systematic_sample
from fastmix_mega.training.engine.batches import even_draw, rows_of_rank

weights = arrays(np.float64, some.integers(1, 12), elements=some.floats(0, 1)).filter(
    lambda values: values.sum() > 0.1
)


@given(weights, some.integers(1, 64), some.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_counts_are_floor_or_ceil(law: np.ndarray, count: int, seed: int) -> None:
    law = law / law.sum()
    drawn = systematic_sample(law, count, np.random.default_rng(seed))
    counts = np.bincount(drawn, minlength=len(law))
    assert len(drawn) == count
    assert (counts >= np.floor(law * count - 1e-9)).all()
    assert (counts <= np.ceil(law * count + 1e-9)).all()
    assert (counts[law == 0] == 0).all()


def test_rare_sources_are_drawn_at_their_rate() -> None:
    """A thousand sources in batches of 8: each comes up as often as the law says."""
    law = np.random.default_rng(0).dirichlet(np.ones(1000))
    counts = np.zeros(1000)
    steps = 20000
    for step in range(steps):
        drawn = systematic_sample(law, 8, np.random.default_rng(step))
        counts += np.bincount(drawn, minlength=1000)
    expected = law * 8 * steps
    assert (np.abs(counts - expected) < 6 * np.sqrt(expected) + 1).all()


def test_a_step_does_not_depend_on_the_steps_before() -> None:
    """Sources are a function of (seed, step); indices count each source's samples on."""
    law = np.array([0.5, 0.3, 0.2])
    sampler = MixtureSampler(5, 3, 8)
    draws = [sampler.draw(step, law) for step in range(6)]
    later = MixtureSampler(5, 3, 8)
    later.drawn = np.bincount(np.concatenate([d.sources for d in draws[:4]]), minlength=3)
    again = later.draw(4, law)
    assert np.array_equal(again.sources, draws[4].sources)
    assert np.array_equal(again.indices, draws[4].indices)
    for source in range(3):
        read = np.concatenate([d.indices[d.sources == source] for d in draws])
        assert read.tolist() == list(range(len(read)))


def test_blocks_hold_one_source() -> None:
    draw = MixtureSampler(1, 4, 24, block=3).draw(0, np.full(4, 0.25))
    assert (draw.sources.reshape(8, 3) == draw.sources[::3, None]).all()


@given(some.integers(1, 4), some.integers(1, 4), some.integers(1, 4))
def test_ranks_share_the_global_batch(micro_batch: int, ranks: int, accumulation: int) -> None:
    total = micro_batch * ranks * accumulation
    parts = [rows_of_rank(total, micro_batch, rank, ranks) for rank in range(ranks)]
    assert all(len(part) == accumulation for part in parts)
    rows = np.concatenate([np.concatenate(part) for part in parts])
    assert sorted(rows.tolist()) == list(range(total))


def test_even_draw_averages_each_set() -> None:
    draw, weight = even_draw(counts=[5, 5, 5], turn=2, multiple=4)
    assert len(weight) == 16
    for each in range(3):
        counted = (draw.sources == each) & (weight > 0)
        assert draw.indices[counted].tolist() == [10, 11, 12, 13, 14]
        assert weight[counted].sum() == 1.0
    assert weight[15] == 0
