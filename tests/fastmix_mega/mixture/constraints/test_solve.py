"""The projection against cvxpy's interior-point solver, on random problems."""

from __future__ import annotations

import cvxpy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmix_mega.mixture.constraints.solve import Infeasible, Node, blend, divergence, project

SOURCES = 12
PROBLEMS = 1000


def random_problem(random: np.random.Generator) -> tuple[Node, np.ndarray, ...]:
    """Feasible by construction: the limits leave room for a mixture that is drawn first."""
    inside = random.dirichlet(np.full(SOURCES, random.choice([0.3, 1.0, 3.0])))
    p = random.dirichlet(np.full(SOURCES, random.choice([0.3, 1.0, 3.0]))) + 1e-6
    p /= p.sum()
    lower = inside * random.random(SOURCES) * (random.random(SOURCES) < 0.5)
    room = random.random(SOURCES) * 0.3
    upper = np.where(random.random(SOURCES) < 0.6, np.minimum(1, inside + room), 1.0)
    fixed = random.random(SOURCES) < 0.1
    lower, upper = np.where(fixed, inside, lower), np.where(fixed, inside, upper)

    def limits(rows: list[int]) -> tuple[float, float]:
        share = inside[rows].sum()
        return share * random.random(), share + (1 - share) * random.random() * 0.3

    inner = Node(*limits([0, 1]), [0, 1])
    nested = Node(*limits([0, 1, 2, 3]), [2, 3], [inner])
    apart = Node(*limits([4, 5, 6]), [4, 5, 6])
    return Node(1.0, 1.0, list(range(7, SOURCES)), [nested, apart]), p, lower, upper


class Reference:
    """One parametrised conic problem, solved again for every set of numbers."""

    ROWS = ([0, 1], [0, 1, 2, 3], [4, 5, 6])

    def __init__(self) -> None:
        self.x = cvxpy.Variable(SOURCES)
        self.log_p = cvxpy.Parameter(SOURCES)
        self.lower, self.upper = cvxpy.Parameter(SOURCES), cvxpy.Parameter(SOURCES)
        self.low, self.high = cvxpy.Parameter(3), cvxpy.Parameter(3)
        shares = [cvxpy.sum(self.x[rows]) for rows in self.ROWS]
        limits = [self.x >= self.lower, self.x <= self.upper, cvxpy.sum(self.x) == 1]
        limits += [share >= self.low[k] for k, share in enumerate(shares)]
        limits += [share <= self.high[k] for k, share in enumerate(shares)]
        distance = -cvxpy.sum(cvxpy.entr(self.x)) - self.log_p @ self.x
        self.problem = cvxpy.Problem(cvxpy.Minimize(distance), limits)

    def solve(self, root: Node, p: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        nested, apart = root.groups
        nodes = (nested.groups[0], nested, apart)
        self.log_p.value, self.lower.value, self.upper.value = np.log(p), lower, upper
        self.low.value = np.array([node.lower for node in nodes])
        self.high.value = np.array([node.upper for node in nodes])
        tight = {"tol_gap_abs": 1e-14, "tol_gap_rel": 1e-14, "tol_feas": 1e-14}
        self.problem.solve(solver=cvxpy.CLARABEL, max_iter=300, **tight)
        return np.asarray(self.x.value)


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
def test_equals_a_convex_solver_on_random_problems() -> None:
    random, reference = np.random.default_rng(1), Reference()
    touched, worst = 0, 0.0
    for _ in range(PROBLEMS):
        problem = random_problem(random)
        root, p, lower, upper = problem
        found, wanted = project(root, p, lower, upper), reference.solve(root, p, lower, upper)
        touched += divergence(found, p) > 1e-3
        worst = max(worst, float(np.abs(found - wanted).max()))
        assert abs(found.sum() - 1) < 1e-12
    assert worst < 1e-6
    assert touched > PROBLEMS // 2


@given(st.integers(0, 2**32 - 1))
def test_no_feasible_mixture_is_nearer(seed: int) -> None:
    """Any other point within the limits is further away; the limits hold to rounding."""
    random = np.random.default_rng(seed)
    root, p, lower, upper = random_problem(random)
    found = project(root, p, lower, upper)
    assert (found >= lower - 1e-12).all()
    assert (found <= upper + 1e-12).all()
    other = project(root, random.dirichlet(np.ones(SOURCES)), lower, upper)
    assert divergence(other, p) >= divergence(found, p) - 1e-10


def test_nothing_moves_within_wide_limits() -> None:
    p = np.array([0.5, 0.3, 0.2])
    assert np.allclose(project(Node(1, 1, [0, 1, 2]), p, np.zeros(3), np.ones(3)), p, atol=1e-15)


def test_untouched_sources_keep_their_ratios() -> None:
    p = np.array([0.6, 0.2, 0.1, 0.1])
    x = project(Node(1, 1, range(4)), p, np.zeros(4), np.array([0.3, 1, 1, 1]))
    assert x == pytest.approx([0.3, 0.35, 0.175, 0.175], abs=1e-14)


def test_zeros_stay_unless_a_minimum_lifts_them() -> None:
    p, ones = np.array([0.0, 0.7, 0.3]), np.ones(3)
    root = Node(1, 1, range(3))
    assert project(root, p, np.zeros(3), ones)[0] == 0
    assert project(root, p, np.array([0.1, 0, 0]), ones) == pytest.approx([0.1, 0.63, 0.27])
    with pytest.raises(Infeasible):
        project(root, p, np.zeros(3), np.array([1, 0.5, 0.4]))


def test_extreme_ratios() -> None:
    p = np.array([1 - 1e-250, 1e-250, 1e-290])
    x = project(Node(1, 1, range(3)), p, np.zeros(3), np.array([0.25, 1, 1]))
    assert x[0] == 0.25
    assert x.sum() == pytest.approx(1, abs=1e-12)
    assert x[1] / x[2] == pytest.approx(1e40)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_blend_minimises_both_distances(strength: float) -> None:
    random = np.random.default_rng(3)
    found, prior = random.dirichlet(np.ones(5)), random.dirichlet(np.ones(5))

    def objective(x: np.ndarray) -> float:
        return (1 - strength) * divergence(x, found) + strength * divergence(x, prior)

    best = blend(found, prior, strength)
    assert best.sum() == pytest.approx(1)
    for _ in range(200):
        assert objective(random.dirichlet(50 * best + 0.01)) >= objective(best) - 1e-12
