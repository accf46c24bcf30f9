"""The mixture of least loss, by exponentiated gradient descent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.mixture.simplex import softmax

LEAST_STEP = 1e-9
"""A smaller one moves nothing."""


def least_loss_mixture(
    loss_of: Callable[[FloatArray], tuple[float, FloatArray]],
    start: FloatArray,
    least_gain: float,
    most_iterations: int,
    allowed: Callable[[FloatArray], FloatArray] = lambda mixture: mixture,
) -> FloatArray:
    """[S] found with a step that grows while the loss falls.

    Args:
        loss_of: the loss at a mixture, and [S] its derivatives.
        start: [S] where the descent starts; allowed.
        least_gain: what an iteration still has to gain.
        most_iterations: after which it ends in any case.
        allowed: the nearest allowed mixture.
    """
    mixture, step = start, 1.0
    loss, gradient = loss_of(mixture)
    for _ in range(most_iterations):
        moved = allowed(softmax(np.log(np.maximum(mixture, 1e-300)) - step * gradient))
        new_loss, new_gradient = loss_of(moved)
        if new_loss > loss:
            step /= 2
            if step < LEAST_STEP:
                break
            continue
        gained = loss - new_loss
        mixture, loss, gradient, step = moved, new_loss, new_gradient, step * 1.5
        if gained < least_gain:
            break
    return mixture
