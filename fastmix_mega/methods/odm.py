"""`method: odm`: a bandit whose reward is a source's training loss.

ODM (Albalak et al., 2023, arXiv 2312.02406).
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.base import Section
from fastmix_mega.methods.losses import LossMethod
from fastmix_mega.mixture.controller import AverageController
from fastmix_mega.mixture.simplex import softmax
from fastmix_mega.training.run import Run


class ODMSection(Section):
    """`method: odm` only: a bandit (EXP3) whose reward is a source's training loss."""

    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """What remains of a reward when a new one comes in (the paper's alpha)."""


class ODM(LossMethod):
    """See the module's docstring."""

    name = "odm"
    Settings = ODMSection

    def controller(self, initial: FloatArray) -> ODMController:
        return ODMController(initial, self.settings.smoothing)

    def cost(self, run: Run, outer_steps: int, steps: int) -> float:
        """The losses come with the training."""
        del run, outer_steps, steps
        return 1.0


class ODMController(AverageController):
    """Moves to the probabilities of the bandit.

    Args:
        initial: [S] the first mixture.
        smoothing: the paper's alpha.
    """

    def __init__(self, initial: FloatArray, smoothing: float = 0.9) -> None:
        super().__init__(initial)
        self._smoothing = smoothing

    def _moved(self, sums: FloatArray, means: FloatArray) -> FloatArray:
        del means
        self._memory = odm_rewards(self._memory, sums, self.mixture, self._smoothing)
        return odm_mixture(self._memory, self.outer_step + 1)


def odm_exploration(source_count: int, turn: int) -> float:
    """ODM, Algorithm 1: min(1/K, sqrt(ln K / (K t))), and 1/K before the first turn."""
    if turn == 0:
        return 1 / source_count
    return min(1 / source_count, float(np.sqrt(np.log(source_count) / (source_count * turn))))


def odm_mixture(rewards: FloatArray, turn: int) -> FloatArray:
    """ODM, Algorithm 1: (1 - K e_t) softmax(e_(t-1) * rewards) + e_t, for turn t of at least 1."""
    count = len(rewards)
    now, before = odm_exploration(count, turn), odm_exploration(count, turn - 1)
    return (1 - count * now) * softmax(before * rewards) + now


def odm_rewards(
    rewards: FloatArray, sums: FloatArray, sampled: FloatArray, smoothing: float
) -> FloatArray:
    """ODM, Algorithm 1: a * reward + (1 - a) * loss / probability, for the sources that were drawn.

    Args:
        rewards: [S] so far.
        sums: [4, S] of the sequences' losses; the batch's draws are averaged.
        sampled: [S] the distribution that the batch was drawn from.
        smoothing: a.
    """
    total, count = sums[0], sums[2]
    weighted = total / max(float(count.sum()), 1.0) / sampled
    return np.where(count > 0, smoothing * rewards + (1 - smoothing) * weighted, rewards)
