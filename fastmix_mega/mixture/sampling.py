"""From which distribution a step's sequences are drawn, and how their losses count."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fastmix_mega.arrays import FloatArray
from fastmix_mega.mixture.simplex import loss_weights, sampling_distribution


@dataclass(frozen=True)
class MixturePolicy:
    """The mixture, and the sampling distribution q that serves it.

    `train` keeps one policy with exploration 0: it samples the mixture, and every weight is 1.
    """

    mixture: FloatArray
    """[S] sums to 1."""
    exploration: float = 0.0
    explored: FloatArray | None = None
    """[S] the distribution of exploration; None is uniform."""

    @property
    def distribution(self) -> FloatArray:
        """[S] q."""
        return sampling_distribution(self.mixture, self.exploration, self.explored)

    @property
    def loss_weights(self) -> FloatArray:
        """[S] mixture / q."""
        return loss_weights(self.mixture, self.distribution)

    def moved_to(self, mixture: FloatArray) -> MixturePolicy:
        """The same at another mixture."""
        return replace(self, mixture=mixture)
