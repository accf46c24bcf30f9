"""RegMix (Liu et al., ICLR 2025, arXiv 2407.01492) as mathematics: draw, fit, choose.

A swarm of proxies is trained on drawn mixtures, a regression predicts a loss from a mixture, and
the best of many simulated mixtures is the answer (the paper's Algorithm 1). Nothing here trains a
model; `swarm.py` does. What the paper leaves open, namely which regression, is chosen by
cross-validation on the swarm alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastmix_mega.arrays import FloatArray
from fastmix_mega.errors import UserError

FAMILIES = ("linear", "log", "lightgbm")
"""Ridge on the shares; ridge on log(share + 0.01); gradient-boosted trees on the shares."""

TEMPERATURE = 0.5
"""Of the shares of tokens that the swarm is drawn around: their square roots, normalised."""
STRENGTHS = (0.1, 5.0, 15)
"""Least, largest and number of the Dirichlet strengths, spaced evenly in the logarithm."""
SIMULATED_STRENGTHS = (0.1, 50.0, 15)
"""The candidates reach further into the simplex than the swarm, but not out of its hull."""
MOST_USAGE = 15.0
"""A source's largest share in the swarm, in multiples of its share of the tokens."""
LEAST_SHARE = 2e-4
"""Smaller shares become 0: too few sequences to mean anything."""

PENALTIES = tuple(float(penalty) for penalty in np.logspace(-5, 2, 15))
"""Of the ridges, per observation and unit of a standardised feature."""
ROUNDS = (100, 300, 1000)
"""Numbers of trees to choose from; the paper's code stops at 1000 at the latest."""
LOG_OFFSET = 0.01
FOLDS = 5

LEAST_RUNS = 4

Model = Callable[[FloatArray], FloatArray]
"""[M, S] mixtures -> [levels, M] losses: a level is a penalty, or a number of trees."""
Fitter = Callable[[FloatArray, FloatArray], Model]
"""([N, S] mixtures, [N] losses) -> a model."""


@dataclass(frozen=True)
class Predictor:
    """Predicts K losses from a mixture."""

    family: str
    """The one that cross-validation chose, of `FAMILIES`."""
    errors: dict[str, float]
    """Per family: cross-validated squared error as a share of the losses' variance, a mean over
    the K losses; 0 is perfect and 1 no better than the mean."""
    columns: tuple[tuple[Model, int], ...]
    """Per loss, its model and the chosen level."""

    def __call__(self, mixtures: FloatArray) -> FloatArray:
        """[M, S] -> [M, K]."""
        return np.stack([model(mixtures)[level] for model, level in self.columns], axis=1)


def draw_mixtures(
    count: int, prior: FloatArray, seed: int, most: FloatArray | None = None
) -> FloatArray:
    """The swarm's mixtures, by the paper's public recipe (its section 3.1).

    Each is Dirichlet(strength * prior^0.5) with a strength drawn from 0.1 to 5, so that both single
    sources and even mixtures occur. A draw in which a source exceeds its limit is drawn again.

    Args:
        count: N.
        prior: [S] shares, usually of tokens; positive.
        seed: of the draw.
        most: [S] largest shares; by default 15 times the prior.

    Returns:
        [N, S], each row sums to 1. The first n rows do not depend on N.

    Raises:
        UserError: if next to no draw keeps to the limits.
    """
    smooth = prior**TEMPERATURE
    smooth /= smooth.sum()
    limits = np.minimum(MOST_USAGE * prior if most is None else most, 1.0)
    random = np.random.default_rng(seed)
    strengths = _strengths(STRENGTHS)
    found: list[FloatArray] = []
    for _ in range(10_000 * count):
        mixture = random.dirichlet(smooth * random.choice(strengths))
        # Strengths near 0 can underflow to a row of nothing.
        if not np.isfinite(mixture).all() or (mixture > limits).any():
            continue
        mixture = np.where(mixture < LEAST_SHARE, 0.0, mixture)
        found.append(mixture / mixture.sum())
        if len(found) == count:
            return np.stack(found)
    raise UserError(
        "regmix: next to no mixture keeps every source below 15 times its share of the tokens; set "
        "regmix.prior to uniform, or merge the smallest sources"
    )


def fit(
    mixtures: FloatArray,
    losses: FloatArray,
    families: Sequence[str] = FAMILIES,
    seed: int = 0,
    folds: int = FOLDS,
) -> Predictor:
    """Fit each family, and keep the one whose cross-validated error is the least.

    Penalties, numbers of trees and the family are all chosen on the same folds of the swarm; no
    other data plays a part.

    Args:
        mixtures: [N, S], N of at least 4.
        losses: [N] or [N, K].
        families: candidates, of `FAMILIES`.
        seed: of the folds.
        folds: of the cross-validation, at most N.

    Raises:
        UserError: if the runs are too few.
    """
    losses = losses.reshape(len(mixtures), -1)
    if len(mixtures) < LEAST_RUNS:
        raise UserError(
            f"regmix: {len(mixtures)} runs are too few to fit; at least {LEAST_RUNS} are needed"
        )
    parts = _folds(len(mixtures), folds, seed)
    chosen = {
        family: [_choose(FITTERS[family], mixtures, column, parts) for column in losses.T]
        for family in families
    }
    errors = {
        family: float(np.mean([choice.error for choice in choices]))
        for family, choices in chosen.items()
    }
    best = min(errors, key=lambda family: errors[family])
    models = [FITTERS[best](mixtures, column) for column in losses.T]
    levels = [choice.level for choice in chosen[best]]
    return Predictor(best, errors, tuple(zip(models, levels, strict=True)))


def best_mixture(
    predict: Callable[[FloatArray], FloatArray],
    prior: FloatArray,
    weights: FloatArray | None = None,
    seed: int = 0,
    candidates: int = 100_000,
    top: int = 128,
) -> FloatArray:
    """[S] the mean of the `top` simulated mixtures with the lowest predicted loss (section 3.3).

    Args:
        predict: [M, S] -> [M, K] losses.
        prior: [S] the candidates are drawn around it.
        weights: [K] each loss's share of the objective; equal by default.
        seed: of the candidates.
        candidates: how many are simulated.
        top: how many are averaged, so that the noise of one prediction does not decide.
    """
    random = np.random.default_rng(seed)
    strengths = random.choice(_strengths(SIMULATED_STRENGTHS), candidates)
    # A Dirichlet draw is normalised gammas; rows that underflow are left out.
    gammas = random.standard_gamma(strengths[:, None] * prior)
    gammas = gammas[gammas.sum(axis=1) > 0]
    simulated = gammas / gammas.sum(axis=1, keepdims=True)
    losses = predict(simulated)  # [M, K]
    shares = np.full(losses.shape[1], 1 / losses.shape[1]) if weights is None else weights
    order = np.argsort(losses @ (shares / shares.sum()), kind="stable")
    mean: FloatArray = simulated[order[:top]].mean(axis=0)
    return mean / mean.sum()


def _strengths(scale: tuple[float, float, int]) -> FloatArray:
    least, largest, number = scale
    return np.geomspace(least, largest, number)


def _folds(count: int, folds: int, seed: int) -> list[NDArray[np.int64]]:
    """The observations that each fold leaves out."""
    order = np.random.default_rng(seed).permutation(count)
    return [np.sort(part) for part in np.array_split(order, min(folds, count))]


@dataclass(frozen=True)
class _Choice:
    """What cross-validation chose for one family and one loss."""

    level: int
    error: float


def _choose(
    fitter: Fitter, mixtures: FloatArray, losses: FloatArray, folds: list[NDArray[np.int64]]
) -> _Choice:
    """The level with the least squared error over the folds, for losses [N]."""
    squares = np.zeros(1)
    for left_out in folds:
        kept = np.setdiff1d(np.arange(len(losses)), left_out)
        predictions = fitter(mixtures[kept], losses[kept])(mixtures[left_out])
        squares = squares + ((predictions - losses[left_out]) ** 2).sum(axis=1)
    spread = max(float(((losses - losses.mean()) ** 2).sum()), 1e-300)
    level = int(np.argmin(squares))
    return _Choice(level, float(squares[level] / spread))


def _linear(mixtures: FloatArray, losses: FloatArray) -> Model:
    return _ridge(lambda rows: rows, mixtures, losses)


def _log(mixtures: FloatArray, losses: FloatArray) -> Model:
    return _ridge(lambda rows: np.log(rows + LOG_OFFSET), mixtures, losses)


def _ridge(
    features: Callable[[FloatArray], FloatArray], mixtures: FloatArray, losses: FloatArray
) -> Model:
    """Ridge regressions with a free intercept, one for each of `PENALTIES`."""
    given = features(mixtures)
    centre, mean = given.mean(axis=0), losses.mean()
    # One scale for all: shares of different sources are the same unit.
    scale = max(float(given.std(axis=0).mean()), 1e-12)
    left, sizes, right = np.linalg.svd((given - centre) / scale, full_matrices=False)
    penalties = np.array(PENALTIES)[:, None] * len(losses)
    shrunk = left.T @ (losses - mean) * sizes / (sizes**2 + penalties)
    coefficients = shrunk @ right  # [penalties, S]
    return lambda rows: coefficients @ ((features(rows) - centre) / scale).T + mean


def _trees(mixtures: FloatArray, losses: FloatArray) -> Model:
    """Gradient-boosted trees after each of `ROUNDS`; the same bits every time.

    The settings are those of the paper's code. Its least leaf, LightGBM's 20 observations, would
    allow no tree at all for small swarms: it is a twentieth of the runs where that is less.
    """
    import lightgbm

    settings = {
        "objective": "regression",
        "learning_rate": 1e-2,
        "min_data_in_leaf": min(20, max(2, len(losses) // 20)),
        "seed": 42,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(mixtures, losses, params={"verbosity": -1})
    booster = lightgbm.train(settings, data, num_boost_round=max(ROUNDS))

    def predict(rows: FloatArray) -> FloatArray:
        return np.stack([booster.predict(rows, num_iteration=rounds) for rounds in ROUNDS])

    return predict


FITTERS: dict[str, Fitter] = {"linear": _linear, "log": _log, "lightgbm": _trees}
