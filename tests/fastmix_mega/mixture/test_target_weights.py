"""Target weights and the matrix of scores: minimax solves a known game, sums add up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmix_mega.mixture.simplex import DecayedSums
from fastmix_mega.mixture.target_weights import TargetScores, TargetWeights, pool_targets


def test_given_weights_stay_as_they_are() -> None:
    weights = TargetWeights(np.array([2.0, 1.0]))
    weights.update(np.array([5.0, 1.0]))
    assert weights.current.tolist() == [2.0, 1.0]


@settings(deadline=None)
@given(
    st.lists(st.floats(0.1, 10), min_size=2, max_size=5),
    st.data(),
)
def test_minimax_is_the_written_formula(start: list[float], data: st.DataObject) -> None:
    """w_k <- w_k exp(step (L_k - r_k)), normalised, over several outer steps."""
    losses = st.lists(st.floats(0, 12), min_size=len(start), max_size=len(start))
    reference = np.array(data.draw(losses))
    weights = TargetWeights(np.array(start), 0.5, reference)
    wanted = np.array(start) / sum(start)
    for _ in range(3):
        found = np.array(data.draw(losses))
        weights.update(found)
        wanted = wanted * np.exp(0.5 * (found - reference))
        wanted = wanted / wanted.sum()
        assert weights.current == pytest.approx(wanted, rel=1e-9)


def test_minimax_finds_the_saddle_point() -> None:
    """Two targets pull one number apart; at the saddle point their excess is equal.

    L_0 = (x - 1)^2 and L_1 = 4 (x + 1)^2 are worst at the same time where x = -1/3; gradient
    descent on the weighted loss, with the weights' ascent, must end there.
    """
    weights = TargetWeights(np.array([1.0, 1.0]), 0.05, np.zeros(2))
    x, mean = 1.0, 0.0
    for step in range(4000):
        losses = np.array([(x - 1) ** 2, 4 * (x + 1) ** 2])
        share = weights.current
        weights.update(losses)
        x -= 0.02 * (share[0] * 2 * (x - 1) + share[1] * 8 * (x + 1))
        mean += (x - mean) / (step + 1)
    assert mean == pytest.approx(-1 / 3, abs=0.02)


def test_only_the_difference_of_losses_counts() -> None:
    first = TargetWeights(np.array([1.0, 3.0]), 0.2, np.array([2.0, 2.0]))
    second = TargetWeights(np.array([1.0, 3.0]), 0.2, np.array([0.0, 0.0]))
    for losses in ([5.0, 4.0], [4.0, 4.5]):
        first.update(np.array(losses))
        second.update(np.array(losses))
    assert first.current == pytest.approx(second.current)
    again = TargetWeights(np.array([1.0, 3.0]), 0.2)
    again.load(first.state())
    assert again.current.tolist() == first.current.tolist()


def windows(count: int, seed: int = 0) -> list[Any]:
    """[4, 2, 4] sums of a few observations of two targets and four sources."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        values = random.normal(1, 1, (6, 2, 4))
        six = np.full((2, 4), 6.0)
        found.append(np.stack((values.sum(0), (values**2).sum(0), six, six)))
    return found


def test_result_is_the_mean_of_the_last_half() -> None:
    scores = TargetScores(2, 4, 0.7, outer_steps=5)
    given_windows = windows(5)
    shares = [np.array([1.0, n]) for n in range(5)]
    gains = np.zeros((2, 4))
    decayed = DecayedSums(*np.zeros((4, 2, 4)))
    for sums, share in zip(given_windows, shares, strict=True):
        estimate = scores.update(sums, share, 0.5)
        decayed = decayed.add(sums, 0.7)
        assert estimate is not None
        assert estimate.mean == pytest.approx(decayed.estimate().mean)
        gains += 0.5 * decayed.estimate().mean
    result = scores.result()
    assert result is not None
    assert result.scores is not None
    assert result.gains is not None
    late = sum(given_windows[2:])
    assert result.scores.mean == pytest.approx(late[0] / 18)
    deviation = np.sqrt(late[1] / 18 - (late[0] / 18) ** 2)
    assert result.scores.standard_error == pytest.approx(deviation / np.sqrt(18))
    assert result.gains == pytest.approx(gains)
    assert result.shares == pytest.approx(np.mean([s / s.sum() for s in shares[2:]], axis=0))


def test_state_round_trip_and_nothing_measured() -> None:
    whole, first = TargetScores(2, 4, 0.7, 4), TargetScores(2, 4, 0.7, 4)
    assert first.result() is None
    for number, sums in enumerate(windows(4)):
        whole.update(sums, np.ones(2), 1.0)
        if number < 3:
            first.update(sums, np.ones(2), 1.0)
    again = TargetScores(2, 4, 0.7, 4)
    again.load(first.state())
    again.update(windows(4)[3], np.ones(2), 1.0)
    names = ["a", "b", "c", "d"]
    found, wanted = again.result(), whole.result()
    assert found is not None
    assert wanted is not None
    assert found.entries(names) == wanted.entries(names)
    unmeasured = TargetScores(2, 4, 0.7, 1)
    assert unmeasured.update(None, np.array([3.0, 1.0]), 1.0) is None
    result = unmeasured.result()
    assert result is not None
    assert result.entries(names) == [{"share": 0.75}, {"share": 0.25}]


def test_seeds_are_pooled_by_target() -> None:
    def entry(value: float) -> list[dict[str, Any]]:
        scores = {"a": value, "b": 2.0}
        errors = {"a": 9.0, "b": 9.0}
        return [{"name": "t", "share": value, "scores": scores, "score_stderr": errors}]

    (pooled,) = pool_targets([entry(1.0), entry(3.0)])
    assert pooled["name"] == "t"
    assert pooled["share"] == 2.0
    assert pooled["scores"] == {"a": 2.0, "b": 2.0}
    assert pooled["score_stderr"] == pytest.approx({"a": 1.0, "b": 0.0})
    (missing,) = pool_targets([entry(1.0), [{"name": "t"}]])
    assert missing == {"name": "t"}
