"""Scores over any set of parameters, from hooks in the ordinary backward pass.

With v = P^-1 g_target fixed, a hook on each parameter adds <v, gradient> of the micro-batch that
is being trained: no extra pass and no stored gradient. Every micro-batch holds one source. This is
the reference for the closed form of `head_scores`, and the ground for research.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from fastmix_mega.errors import UserError
from fastmix_mega.model.initialize import EMBEDDING_NAME, HEAD_NAME

Chosen = TypeVar("Chosen")


def no_such_parameters(scores: str, names: Iterable[str]) -> str:
    """What to say where `search.scores` chooses none of the parameters with these names."""
    return (
        f"search.scores: {scores!r} matches none of the parameters ({', '.join(list(names)[:6])}, "
        "...); or say head, hooks:head, body or all"
    )


def select_parameters(
    parameters: Mapping[str, Chosen], scores: str, tied: bool
) -> dict[str, Chosen]:
    """Those of this process's `parameters` that `search.scores` names; maybe none of a stage's.

    Args:
        scores: `hooks:head` (with the embedding where it is tied), `all`, `body` (all but the
            embedding and the head), or a regular expression that is searched in the names.
        tied: whether the embedding is the head.

    Raises:
        UserError: if the expression is broken.
    """
    if scores == "all":
        return dict(parameters)
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
        self.target_directions: list[list[Tensor]] = []
        """[K] the same of every target by itself."""
        self.scored: list[bool] = []
        """Which of the coming backward passes are compared with the targets' directions too."""
        self._counted = list(counted)
        self._products: list[list[Tensor]] = [[] for _ in self.parameters]
        self._target_products: list[list[Tensor]] = [[] for _ in self.parameters]
        for position, parameter in enumerate(self.parameters):
            parameter.register_hook(self._hook(position))

    def _hook(self, position: int):  # type: ignore[no-untyped-def]
        def add(gradient: Tensor) -> None:
            if self.directions is not None and self._counted[position]:
                number = len(self._products[position])
                product = _product(gradient, self.directions[position])
                self._products[position].append(product)
                if self.target_directions and self.scored[number]:
                    products = [_product(gradient, v[position]) for v in self.target_directions]
                    self._target_products[position].append(torch.stack(products))

        return add

    def take(self, count: int) -> Tensor:
        """[count] fp64: the sums of the `count` backward passes since the last call."""
        return self._sum(self._products, (count,))

    def take_targets(self) -> Tensor:
        """[passes that were scored, K] fp64, since the last call."""
        shape = (sum(self.scored), len(self.target_directions))
        return self._sum(self._target_products, shape)

    def _sum(self, products: list[list[Tensor]], shape: tuple[int, ...]) -> Tensor:
        """Over the parameters that count here; starts anew."""
        mine = [each for each, counted in zip(products, self._counted, strict=True) if counted]
        assert all(len(each) == shape[0] for each in mine), "a backward pass was missed"
        totals = torch.zeros(shape, dtype=torch.float64)
        if mine and shape[0]:
            totals = torch.stack([torch.stack(each) for each in mine]).sum(0)
        for each in products:
            each.clear()
        return totals


def _product(gradient: Tensor, direction: Tensor) -> Tensor:
    # Only the rows' sums are fp64: half of the time on CPU.
    return (gradient * direction).sum(-1, dtype=torch.float32).sum(dtype=torch.float64)
