"""Limits together with fixed ratios, against a convex solver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from fastmix_mega.config.constraints import Constraints
from fastmix_mega.errors import UserError
from fastmix_mega.mixture.constraints.apply import ConstraintSet, Sources
from fastmix_mega.mixture.constraints.tied_limits import TiedConstraintSet
from fastmix_mega.mixture.tied_sources import TiedSources

pytestmark = pytest.mark.filterwarnings("ignore:Solution may be inaccurate")

TIGHT = {"tol_gap_abs": 1e-14, "tol_gap_rel": 1e-14, "tol_feas": 1e-14}
NAMES = ["a", "b", "c", "d", "e"]
TIED = TiedSources(
    np.array([0.6, 0.3, 0.1, 0.0, 0.0]), np.zeros(5), np.array([True, True, True, False, False])
)


def tied_set(limits: dict[str, Any], tokens: list[int | None] | None = None) -> TiedConstraintSet:
    sources = Sources(NAMES, tokens or [1000] * 5)
    return TiedConstraintSet(Constraints.model_validate(limits), sources, "limits", TIED)


def convex(before: np.ndarray, limits: Callable[[cp.Expression], list[Any]]) -> np.ndarray:
    """The nearest mixture by an interior-point solver, over the three shares."""
    y = cp.Variable(3)
    x = np.column_stack([TIED.expand(row) for row in np.eye(3)]) @ y
    distance = -cp.sum(cp.entr(x)) - np.log(before) @ x
    cp.Problem(cp.Minimize(distance), [cp.sum(x) == 1, *limits(x)]).solve(
        solver=cp.CLARABEL, max_iter=300, **TIGHT
    )
    return np.asarray(x.value)


def test_random_problems_equal_a_convex_solver() -> None:
    random = np.random.default_rng(0)
    solved = 0
    for _ in range(60):
        before = TIED.expand(random.dirichlet(np.ones(3)))
        low, high = random.uniform(0, 0.3), random.uniform(0.3, 0.8)
        top, inner = random.uniform(0.05, 0.4), random.uniform(0.2, 0.9)
        limits = {
            "sources": {"a": {"max": top}, "d": {"min": low}},
            "groups": {
                "inside": {"sources": ["a", "b"], "max": inner},
                "across": {"sources": ["a", "b", "c", "e"], "max": high},
            },
        }
        try:
            found = tied_set(limits).project(before)
        except UserError:
            continue
        wanted = convex(
            before,
            lambda x, top=top, low=low, inner=inner, high=high: [
                x[0] <= top,
                x[3] >= low,
                x[0] + x[1] <= inner,
                cp.sum(x) - x[3] <= high,
            ],
        )
        np.testing.assert_allclose(found, wanted, atol=1e-6)
        solved += 1
    assert solved > 30


def test_a_prior_is_blended_within_the_ratios() -> None:
    """argmin (1 - s) KL(x || found) + s KL(x || prior) over mixtures with these ratios."""
    found = TIED.expand(np.array([0.5, 0.3, 0.2]))
    prior = np.array([0.1, 0.2, 0.3, 0.2, 0.2])
    weights = dict(zip(NAMES, prior.tolist(), strict=True))
    limits = {"prior": {"mixture": weights, "strength": 0.4}, "sources": {"e": {"max": 0.15}}}
    blended = found**0.6 * prior**0.4
    wanted = convex(blended, lambda x: [x[4] <= 0.15])
    np.testing.assert_allclose(tied_set(limits).project(found), wanted, atol=1e-6)


def test_without_ties_that_matter_it_is_the_ordinary_projection() -> None:
    one = TiedSources(np.eye(5)[0], np.zeros(5), np.eye(5)[0] > 0)
    limits = Constraints.model_validate(
        {
            "max_epochs": 2,
            "budget_tokens": 5000,
            "groups": {"g": {"sources": ["b", "c"], "min": 0.5}},
        }
    )
    sources = Sources(NAMES, [1000, 2000, 3000, 4000, 5000])
    before = np.array([0.5, 0.1, 0.1, 0.2, 0.1])
    np.testing.assert_allclose(
        TiedConstraintSet(limits, sources, "limits", one).project(before),
        ConstraintSet(limits, sources, "limits").project(before),
        rtol=1e-12,
    )


def test_epochs_of_a_tied_source_limit_the_group() -> None:
    limits = {"max_epochs": 1, "budget_tokens": 10_000}
    result = tied_set(limits, [1200, 9000, 9000, 9000, 9000]).apply(
        TIED.expand(np.array([0.8, 0.1, 0.1]))
    )
    np.testing.assert_allclose(result.weights[0], 0.12)
    np.testing.assert_allclose(result.weights[:3] / TIED.ratios[:3], 0.2)
    assert any("1 epochs" in text for text in result.holding)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"sources": {"a": {"min": 0.5}, "b": {"max": 0.1}}}, "keep their ratios"),
        ({"groups": {"g": {"sources": ["a", "d"], "max": 0.5}}}, "some of the untouched"),
        ({"sources": {"c": {"min": 0.5}}}, "keep their ratios"),
        ({"sources": {"nobody": {"min": 0.5}}}, "no source of this mixture"),
    ],
)
def test_what_the_ratios_cannot_keep_to_is_refused(limits: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        tied_set(limits)
