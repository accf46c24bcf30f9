"""Ratios that stay, whatever the scores; and no ties are no change."""

from __future__ import annotations

import pickle

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmix_mega.config.constraints import Constraints
from fastmix_mega.mixture.constraints.apply import Sources
from fastmix_mega.mixture.constraints.tied_limits import TiedConstraintSet
from fastmix_mega.mixture.exponentiated_gradient import ExponentiatedGradient, RuleSettings
from fastmix_mega.mixture.sampling import MixturePolicy
from fastmix_mega.mixture.tied_sources import TiedSources
from tests.fastmix_mega.mixture.windows import window


def tied_sources(random: np.random.Generator, count: int, kept: int) -> TiedSources:
    ratios = np.zeros(count)
    ratios[:kept] = random.dirichlet(np.full(kept, 0.5)) + 1e-6
    held = np.arange(count) < kept
    order = random.permutation(count)
    ratios /= ratios.sum()
    return TiedSources(ratios[order], 0.1 * ratios[order], held[order])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(0, 4), st.booleans())
def test_ratios_are_exact_at_every_step(seed: int, kept: int, free: int, limited: bool) -> None:
    """Against random scores with noise, with a prior, with limits, and after a restart."""
    random = np.random.default_rng(seed)
    tied = tied_sources(random, kept + free, kept)
    names = [f"s{index}" for index in range(kept + free)]
    project = None
    if limited and free:
        place = int(tied.free[0])
        limits = Constraints.model_validate({"sources": {names[place]: {"min": 0.1, "max": 0.4}}})
        sources = Sources(names, [1000] * len(names))
        project = TiedConstraintSet(limits, sources, "limits", tied).project
    initial = tied.expand(random.dirichlet(np.ones(1 + free)))
    if project is not None:
        initial = project(initial)
    rule = RuleSettings(step=0.3, decay=0.7, prior_strength=0.05)
    controller = ExponentiatedGradient(initial, rule, project, tied)
    means = random.standard_normal(len(names))
    for step in range(12):
        if step == 6:
            restarted = ExponentiatedGradient(initial, rule, project, tied)
            restarted.load(pickle.loads(pickle.dumps(controller.state())))
            controller = restarted
        controller.update(window(random, means))
        inside = controller.mixture[tied.kept]
        np.testing.assert_allclose(inside / inside.sum(), tied.ratios[tied.kept], rtol=1e-14)
        assert abs(controller.mixture.sum() - 1) < 1e-12
        if free:
            assert np.abs(controller.mixture[~tied.kept] - initial[~tied.kept]).max() > 0 or limited
    found = controller.result()
    inside = found.weights[tied.kept]
    np.testing.assert_allclose(inside / inside.sum(), tied.ratios[tied.kept], rtol=1e-14)
    if not free:
        np.testing.assert_allclose(found.weights, initial, rtol=1e-14)


def test_with_every_source_free_but_one_the_controller_is_the_ordinary_one() -> None:
    random = np.random.default_rng(3)
    initial = random.dirichlet(np.ones(5))
    one = TiedSources(np.eye(5)[2], np.zeros(5), np.eye(5)[2] > 0)
    rule = RuleSettings(step=0.2, decay=0.7, prior_strength=0.05)
    ordinary = ExponentiatedGradient(initial, rule)
    tied = ExponentiatedGradient(initial, rule, tied=one)
    for _ in range(10):
        sums = window(random, np.array([1.0, 0.0, -1.0, 0.5, 0.2]))
        ordinary.update(sums)
        tied.update(sums)
    wanted, found = ordinary.result(), tied.result()
    np.testing.assert_allclose(found.weights, wanted.weights, rtol=1e-12)
    np.testing.assert_allclose(found.standard_errors, wanted.standard_errors, rtol=1e-12)


def test_the_group_moves_as_one_source_with_its_mean_score() -> None:
    """Three tied sources, against the rule on two shares with the group's mean score."""
    ratios, means = np.array([0.5, 0.3, 0.2, 0.0]), np.array([1.0, -0.4, 0.1, 0.6])
    tied = TiedSources(ratios, np.zeros(4), ratios > 0)
    rule = RuleSettings(step=0.2, decay=0.7)
    controller = ExponentiatedGradient(tied.expand(np.array([0.7, 0.3])), rule, tied=tied)
    logits = np.log([0.7, 0.3])
    for _ in range(8):
        count = np.full(4, 20)
        controller.update(np.stack((20 * means, 20 * means**2, count, count)))
        shares = np.exp(logits) / np.exp(logits).sum()
        scores = np.array([ratios @ means, 0.6])
        scale = np.abs(means - means.mean()).max()
        logits = logits + 0.2 * (scores - shares @ scores) / scale
    wanted = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(tied.contract(controller.mixture), wanted, rtol=1e-9)
    assert wanted[1] > 0.3


def test_free_sources_are_explored_oftener_and_weights_stay_unbiased() -> None:
    ratios = np.array([0.4, 0.3, 0.2, 0.1, 0.0])
    tied = TiedSources(ratios, np.zeros(5), ratios > 0)
    mixture = tied.expand(np.array([0.8, 0.2]))
    policy = MixturePolicy(mixture, 0.5, tied.even_distribution)
    np.testing.assert_allclose(policy.distribution.sum(), 1)
    np.testing.assert_allclose(policy.distribution * policy.loss_weights, mixture, rtol=1e-14)
    np.testing.assert_allclose(policy.distribution[4], 0.5 * 0.2 + 0.5 * 0.5)
    assert MixturePolicy(mixture, 0.5).distribution[4] < policy.distribution[4]


def test_standard_errors_hold_those_of_the_ratios() -> None:
    ratios = np.array([0.75, 0.25, 0.0])
    errors = np.array([0.1, 0.05, 0.0])
    tied = TiedSources(ratios, errors, ratios > 0)
    mixture = tied.expand(np.array([0.6, 0.4]))
    np.testing.assert_allclose(tied.standard_errors(mixture, np.zeros(3)), 0.6 * errors)
    # By simulation: noise of the shares alone.
    random, variance = np.random.default_rng(0), np.array([0.01, 0.02, 0.03])
    noise = random.standard_normal((200_000, 3)) * np.sqrt(variance)
    logits = np.log(mixture) + np.stack([tied.average(row) for row in noise[:20_000]])
    samples = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    without = TiedSources(ratios, np.zeros(3), ratios > 0)
    np.testing.assert_allclose(
        without.standard_errors(mixture, variance), samples.std(axis=0), rtol=0.03
    )
