"""The nearest mixture within limits: an exact KL projection, as pure functions.

Minimise  sum_i x_i log(x_i / p_i)  over mixtures x with  lower <= x <= upper  and with limits on
the joint shares of groups that are nested or apart. By the optimality conditions every source is
x_i = clip(p_i * level, lower_i, upper_i), with one level for all sources but for those in a group
whose own limit holds: such a group has a level of its own ("water-filling"). A node's mass grows
with the level, so that each level is found by bisection; sources that no limit touches keep their
ratios exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fastmix_mega.arrays import FloatArray

ROUNDING = 1e-12
"""Sums of limits that miss 1 by less are met: 0.3 + 0.3 + 0.4 is 1."""
BISECTIONS = 120
"""Halvings of an interval of logarithms at most 3,000 wide: to the last bit of a float."""


@dataclass(frozen=True)
class Node:
    """A group of sources and of other groups, with limits on its joint share."""

    lower: float = 0.0
    upper: float = 1.0
    sources: Sequence[int] = ()
    groups: Sequence[Node] = field(default_factory=tuple)


class Infeasible(ValueError):
    """No mixture keeps to the limits: a node's parts hold less, or must hold more, than its share.

    Attributes:
        node: the innermost group whose parts contradict it.
        smallest, largest: what its parts can hold together.
    """

    def __init__(self, node: Node, smallest: float, largest: float) -> None:
        super().__init__(f"the parts hold {smallest:g} to {largest:g}, the whole {node}")
        self.node, self.smallest, self.largest = node, smallest, largest


def reach(node: Node, p: FloatArray, lower: FloatArray, upper: FloatArray) -> tuple[float, float]:
    """The smallest and the largest share that the node can have.

    A source with p = 0 stays at its lower limit: any other share is infinitely far from p.

    Raises:
        Infeasible: if they contradict the node's own limits, or those of a group in it.
    """
    most = np.where(p > 0, upper, lower)
    inner = [reach(group, p, lower, upper) for group in node.groups]
    rows = list(node.sources)
    smallest = float(lower[rows].sum()) + sum(low for low, _ in inner)
    largest = float(most[rows].sum()) + sum(high for _, high in inner)
    if smallest > node.upper + ROUNDING or largest < node.lower - ROUNDING:
        raise Infeasible(node, smallest, largest)
    return max(smallest, node.lower), min(largest, node.upper)


def project(root: Node, p: FloatArray, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """The mixture within the limits that is nearest to p in KL(x || p).

    Args:
        root: with limits 1 and 1, and every source in it once.
        p: [S] not negative, with a positive sum.
        lower, upper: [S] limits of every source; lower <= upper.

    Raises:
        Infeasible: if there is none.
    """
    reach(root, p, lower, upper)
    result = np.array(lower, np.float64)
    _fill(root, 1.0, p=p, lower=lower, upper=upper, result=result)
    return result


def _mass(node: Node, level: float, p: FloatArray, lower: FloatArray, upper: FloatArray) -> float:
    """The node's share at a level: monotone and continuous."""
    rows = np.array(node.sources, np.intp)
    own = float(np.clip(p[rows] * level, lower[rows], upper[rows]).sum())
    whole = own + sum(_mass(group, level, p, lower, upper) for group in node.groups)
    return min(max(whole, node.lower), node.upper)


def _fill(
    node: Node,
    share: float,
    p: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    result: FloatArray,
) -> None:
    """Give the node's sources their parts of its share."""
    free = Node(0.0, math.inf, node.sources, node.groups)
    low, high = -1400.0, 700.0  # Of the level's logarithm: all that a float can hold.
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if middle in (low, high):
            break  # No float lies between them.
        if _mass(free, math.exp(middle), p, lower, upper) < share:
            low = middle
        else:
            high = middle
    level = math.exp(high)
    rows = list(node.sources)
    result[rows] = np.clip(p[rows] * level, lower[rows], upper[rows])
    for group in node.groups:
        _fill(
            group,
            _mass(group, level, p, lower, upper),
            p=p,
            lower=lower,
            upper=upper,
            result=result,
        )


def divergence(x: FloatArray, p: FloatArray) -> float:
    """KL(x || p) in nats; infinite where x holds what p does not."""
    held = x > 0
    if (p[held] <= 0).any():
        return math.inf
    return max(0.0, float((x[held] * np.log(x[held] / p[held])).sum()))


def blend(found: FloatArray, prior: FloatArray, strength: float) -> FloatArray:
    """argmin_x (1 - s) KL(x || found) + s KL(x || prior): the normalised geometric mean."""
    if strength == 0:
        return found
    if strength == 1:
        return prior
    mean = found ** (1 - strength) * prior**strength
    return mean / mean.sum() if mean.sum() > 0 else mean
