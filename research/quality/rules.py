"""Other settings of the rule on the recorded scores of a search. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.mixture.advantage import Advantages, drift
from fastmix_mega.mixture.exponentiated_gradient import ExponentiatedGradient, RuleSettings
from fastmix_mega.mixture.simplex import exponentiated_gradient, geometric_mean, softmax

SETTINGS: dict[str, float] = {"step": 0.2, "decay": 0.7, "prior_strength": 0.05, "averaged": 0.5}
"""The defaults; `averaged` is the share of the run that the result is a mean over."""
VARIANTS: list[dict[str, float]] = [
    {},
    *({"prior_strength": value} for value in (0.0, 0.02, 0.1, 0.2)),
    *({"step": value} for value in (0.1, 0.3, 0.4)),
    *({"decay": value} for value in (0.0, 0.5, 0.9)),
    *({"averaged": value} for value in (0.25, 0.75, 1.0)),
    {"step": 0.4, "prior_strength": 0.1},
    {"step": 0.4, "averaged": 0.25},
    {"step": 0.8, "prior_strength": 0.2},
    *({"quick": 1, **other} for other in ({}, {"step": 0.3}, {"step": 0.4}, {"averaged": 0.25})),
    *({"dual": value, "averaged": 0.0} for value in (2.0, 3.0, 4.0, 6.0, 8.0)),
    *({"dual": value, "power": 1.0, "averaged": 0.0} for value in (3.0, 4.0, 6.0)),
]
REPLAYED = "fastmix_scores"
"""The searches whose scores are taken again: they began at uniform, and scores decided alone."""
TRIALS: dict[str, dict[str, float]] = {
    "trial_quick": {"quick": 1},
    "trial_quick3": {"quick": 1, "step": 0.3},
    "trial_dual4": {"dual": 4.0, "averaged": 0.0},
    "trial_dual6": {"dual": 6.0, "averaged": 0.0},
}
"""Variants worth trainings: applied to the first search seed's scores, without a search."""


QUICK_START_ZEROS = 4
"""Scores of 0 that the first outer steps are averaged with, so that one window's noise moves a
mixture by a fifth of the way only."""


class QuickStart(ExponentiatedGradient):
    """Larger steps and pulls at first, in the same ratio: tried, and not a part of the product.

    With a pull of 1 / (k + n) at outer step k the logits are step / prior_strength times the plain
    mean of all normalised scores, with n scores of 0 added (dual averaging; Nesterov, 2009), until
    the pull is `prior_strength`. The standard errors of the product's rule do not hold here.
    """

    def _moved(self, logits: FloatArray, scores: FloatArray, scale: float) -> FloatArray:
        strength = self.settings.prior_strength
        pull = max(strength, 1 / (self.outer_step + QUICK_START_ZEROS))
        pulled = logits + pull * (self._initial_logits - logits)
        step = self.settings.step * pull / strength
        return exponentiated_gradient(pulled, scores, scale, step)


def windows(history: Sequence[dict[str, Any]], decay: float) -> list[FloatArray]:
    """[4, S] sums of every outer step, from the decayed means that the history holds.

    The sums of squares are 0: mixtures do not depend on them. Every sequence counts alike.
    """
    found = []
    total = weight = np.zeros(len(history[0]["scores"]))
    for row in history:
        count = np.array(row["counts"], np.float64)
        faded_weight = decay * weight
        weight = faded_weight + count
        new_total = np.array(row["scores"]) * weight
        found.append(np.stack((new_total - decay * total, np.zeros_like(count), count, count)))
        total = new_total
    return found


def replay(sums: Sequence[FloatArray], settings: dict[str, float]) -> FloatArray:
    """[K, S] logarithms of the mixtures after every outer step."""
    count = sums[0].shape[1]
    if "dual" in settings:
        return dual_averaging(sums, settings["dual"], settings["decay"], settings.get("power", 0.0))
    rule = RuleSettings(settings["step"], settings["decay"], settings["prior_strength"])
    controller = (QuickStart if settings.get("quick") else ExponentiatedGradient)(
        np.full(count, 1 / count), rule
    )
    trajectory = []
    for window in sums:
        controller.update(window)
        trajectory.append(np.log(controller.mixture))
    return np.array(trajectory)


def dual_averaging(
    sums: Sequence[FloatArray], strength: float, decay: float, power: float
) -> FloatArray:
    """[K, S] logarithms of softmax(strength * mean of the normalised scores so far).

    What follows does not depend on the length of the search. Scores are normalised as the rule
    does; outer step k counts with k^power.
    """
    count = sums[0].shape[1]
    controller = ExponentiatedGradient(np.full(count, 1 / count), RuleSettings(0.0, decay))
    total, weights = np.zeros(count), 0.0
    scale, faded, trajectory = 0.0, 0.0, []
    for number, window in enumerate(sums, start=1):
        scores = controller.update(window).mean
        scores = scores - scores.mean()
        scale, faded = 0.9 * scale + 0.1 * np.abs(scores).max(), 0.9 * faded + 0.1
        total = total + number**power * scores / max(scale / faded, 1e-300)
        weights += number**power
        trajectory.append(np.log(softmax(strength * total / weights)))
    return np.array(trajectory)


def averaged(trajectory: FloatArray, share: float) -> FloatArray:
    """[S] the geometric mean over the last part of a run."""
    first = len(trajectory) - max(1, round(share * len(trajectory)))
    return geometric_mean(trajectory[first:])


def evidence(sums: Sequence[FloatArray], trajectory: FloatArray) -> Advantages:
    """What `mixture.json` would say of the first windows."""
    count = trajectory.shape[1]
    initial = np.full(count, 1 / count)
    found = Advantages()
    before = [initial, *np.exp(trajectory[:-1])]
    for mixture, window in zip(before, sums, strict=True):
        found.add(mixture, initial, window)
    return found


def settled_at(trajectory: FloatArray, tolerance: float) -> int | None:
    """The outer step at which `search.stop_when_converged` would have ended the search."""
    for end in range(1, len(trajectory) + 1):
        if drift(trajectory[:end]) <= tolerance:
            return end
    return None


def replayed(history: Sequence[dict[str, Any]], settings: dict[str, float]) -> FloatArray:
    """[S] what a search with these settings makes of the same scores."""
    return averaged(replay(windows(history, SETTINGS["decay"]), settings), settings["averaged"])
