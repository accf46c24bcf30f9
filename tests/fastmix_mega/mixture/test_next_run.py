"""The run that tells most: the closed form where it is plain, and by simulation."""

from __future__ import annotations

import numpy as np

from fastmix_mega.mixture.next_run import most_reducing, most_telling
from fastmix_mega.mixture.surface import SurfaceConstants
from fastmix_mega.mixture.surface_fit import Evidence, Slopes, fit
from fastmix_mega.mixture.surface_values import OWN, Values


def test_it_looks_where_the_best_may_be() -> None:
    """Two may be best, a third is unsure and hopeless; of the two the less certain one tells
    more, and one that speaks for both tells most."""
    mean = np.array([1.0, 1.0, 9.0])
    assert most_reducing(mean, np.diag([0.01, 0.04, 1.0]), 0.02, 0) == 1
    covariance = np.array([[0.04, 0.0, 0.03], [0.0, 0.04, 0.03], [0.03, 0.03, 0.06]])
    assert most_reducing(np.ones(3), covariance, 0.02, 0) == 2


def test_told_runs_make_the_answer_better_than_others() -> None:
    """On surfaces drawn from the prior: three runs that tell most, against three at random."""
    random, even = np.random.default_rng(3), np.full(5, 0.2)
    constants = SurfaceConstants(misfit=0.0, freedom=1e9)
    regrets: dict[str, list[float]] = {"told": [], "random": []}
    scale = even + constants.bend
    for _ in range(12):
        worth = random.normal(0, 0.5, 5)
        pool = random.dirichlet(np.ones(5), size=40)
        losses = 3 - (scale * np.log((pool + constants.bend) / scale)) @ worth
        slopes = Slopes(worth + random.normal(0, 0.5, 5), np.full(5, 0.5), np.ones(5))
        for way, regret in regrets.items():
            chosen: list[int] = []
            for step in range(4):
                own, whole = np.full(len(chosen), OWN), np.full(len(chosen), False)
                known = Values(pool[chosen], losses[chosen][:, None], own, whole)
                found = fit(even, None, [Evidence(3.0, slopes)], known, constants)
                if step == 3:
                    break
                left = np.setdiff1d(np.arange(len(pool)), chosen)
                told = most_telling(found, pool[left], np.ones(1), step)
                chosen.append(int(left[told] if way == "told" else random.choice(left)))
            picked = int(found.predict(pool).mean[:, 0].argmin())
            regret.append(float(losses[picked] - losses.min()))
    assert np.mean(regrets["told"]) < 0.7 * np.mean(regrets["random"])
