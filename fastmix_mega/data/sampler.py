"""Which samples make up a global batch: by the seed, the step and the sampling distribution.

The draw is made for the whole global batch, the same on every process, and knows nothing of ranks:
each process then takes its own rows. So the samples of a step are the same under every layout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Draw:
    """One global batch, by reference."""

    sources: IntArray
    """[B] the source of each sequence."""
    indices: IntArray
    """[B] which of the source's samples it is, counted from 0 without end."""


class MixtureSampler:
    """Draws the global batches of a run.

    Sources are drawn by systematic sampling: a source with probability q gets floor or ceil of
    q * B places in every batch and q * B in expectation, so that the observed shares follow the
    distribution with less noise than independent draws.

    Args:
        seed: of the run.
        source_count: S.
        global_batch: B, sequences per step.
        block: consecutive sequences that share a source: 1, or the micro-batch's size where
            micro-batches must hold one source. Divides `global_batch`.
    """

    def __init__(self, seed: int, source_count: int, global_batch: int, block: int = 1) -> None:
        assert global_batch % block == 0
        self.seed = seed
        self.global_batch = global_batch
        self.block = block
        self.drawn: IntArray = np.zeros(source_count, np.int64)
        """[S] samples drawn so far: the sampler's whole state."""

    def draw(self, step: int, distribution: FloatArray) -> Draw:
        """The global batch of `step` under the sampling distribution q [S]. Advances the state."""
        generator = np.random.Generator(np.random.Philox(key=[self.seed, step]))
        blocks = systematic_sample(distribution, self.global_batch // self.block, generator)
        sources = np.repeat(blocks, self.block)
        indices = np.empty_like(sources)
        for source in np.unique(sources):
            places = np.flatnonzero(sources == source)
            indices[places] = self.drawn[source] + np.arange(len(places))
            self.drawn[source] += len(places)
        return Draw(sources, indices)


def systematic_sample(
    distribution: FloatArray, count: int, generator: np.random.Generator
) -> IntArray:
    """`count` sources in random order; source i appears count * distribution[i] times, rounded
    up or down.

    The order in which the sources lie on the line is drawn anew, so that no two sources exclude
    each other from batch to batch.
    """
    order = generator.permutation(len(distribution))
    edges = np.cumsum(distribution[order])
    points = (np.arange(count) + generator.random()) / count * edges[-1]
    positions = np.searchsorted(edges, points, side="right")
    chosen = order[np.minimum(positions, len(distribution) - 1)]
    return generator.permutation(chosen).astype(np.int64)
