"""Scores over any set of parameters, from hooks in the ordinary backward pass.

With v = P^-1 g_target fixed, a hook on each parameter adds <v, gradient> of the micro-batch that
is being trained: no extra pass and no stored gradient. Every micro-batch holds one source. This is
the reference for the closed form of `head_scores`, and the ground for research.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fastmix_mega.errors import UserError
from fastmix_mega.model.initialize import EMBEDDING_NAME, HEAD_NAME


def select_parameters(
    parameters: dict[str, nn.Parameter], scores: str, tied: bool
) -> dict[str, nn.Parameter]:
    """Those of this process's `parameters` that `search.scores` names; maybe none of a stage's.

    Args:
        scores: `hooks:head` (with the embedding where it is tied), `all`, `body` (all but the
            embedding and the head), or a regular expression that is searched in the names.
        tied: whether the embedding is the head.

    Raises:
        UserError: if the expression is broken.
    """
    if scores == "all":
        return parameters
    if scores == "hooks:head":
        names = (HEAD_NAME, EMBEDDING_NAME) if tied else (HEAD_NAME,)
        return {name: value for name, value in parameters.items() if name in names}
    if scores == "body":
        return {name: value for name, value in parameters.items() if name.startswith("decoder.")}
    try:
        pattern = re.compile(scores)
    except re.error as error:
        raise UserError(f"search.scores: {scores!r} is no regular expression: {error}") from None
    return {name: value for name, value in parameters.items() if pattern.search(name)}


class GradientProducts:
    """<v, gradient>, summed over parameters, of every backward pass in turn.

    Backward passes run in the micro-batches' order under every schedule, and a hook fires once in
    each, so that the n-th call of each hook belongs to the n-th micro-batch.

    Args:
        parameters: to watch.
        counted: whether this process counts the parameter, or leaves it to another.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], counted: Iterable[bool]) -> None:
        self.parameters = list(parameters)
        self.directions: list[Tensor] | None = None
        """v, one tensor per parameter; None measures nothing."""
        self._counted = list(counted)
        self._products: list[list[Tensor]] = [[] for _ in self.parameters]
        for position, parameter in enumerate(self.parameters):
            parameter.register_hook(self._hook(position))

    def _hook(self, position: int):  # type: ignore[no-untyped-def]
        def add(gradient: Tensor) -> None:
            if self.directions is not None and self._counted[position]:
                direction = self.directions[position]
                product = torch.sum(gradient * direction, dtype=torch.float64)
                self._products[position].append(product)

        return add

    def take(self, count: int) -> Tensor:
        """[count] fp64: the sums of the `count` backward passes since the last call."""
        products = [
            each for each, counted in zip(self._products, self._counted, strict=True) if counted
        ]
        assert all(len(each) == count for each in products), "a backward pass was missed"
        totals = torch.zeros(count, dtype=torch.float64)
        if products:
            totals = torch.stack([torch.stack(each) for each in products]).sum(0)
        for each in self._products:
            each.clear()
        return totals
