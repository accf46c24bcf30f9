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


def select_parameters(model: nn.Module, head: nn.Parameter, scores: str) -> dict[str, nn.Parameter]:
    """The parameters that `search.scores` names.

    Args:
        scores: `hooks:head`, `all`, `body` (all but the embedding and the head), or a regular
            expression that is searched in the parameters' names.

    Raises:
        UserError: if the expression is broken or matches nothing.
    """
    parameters = dict(model.named_parameters())
    if scores == "all":
        return parameters
    if scores == "hooks:head":
        return {name: value for name, value in parameters.items() if value is head}
    if scores == "body":
        return {name: value for name, value in parameters.items() if name.startswith("decoder.")}
    try:
        pattern = re.compile(scores)
    except re.error as error:
        raise UserError(f"search.scores: {scores!r} is no regular expression: {error}") from None
    chosen = {name: value for name, value in parameters.items() if pattern.search(name)}
    if not chosen:
        raise UserError(
            f"search.scores: {scores!r} matches none of the parameters "
            f"({', '.join(list(parameters)[:6])}, ...); or say head, hooks:head, body or all"
        )
    return chosen


class GradientProducts:
    """Accumulates sum over parameters of <v, gradient> while a backward pass runs."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.directions: list[Tensor] | None = None
        """v, one tensor per parameter; None measures nothing."""
        self._products: list[Tensor] = []
        for position, parameter in enumerate(self.parameters):
            parameter.register_hook(self._hook(position))

    def _hook(self, position: int):  # type: ignore[no-untyped-def]
        def add(gradient: Tensor) -> None:
            if self.directions is not None:
                direction = self.directions[position]
                product = torch.sum(gradient * direction, dtype=torch.float64)
                self._products.append(product)

        return add

    def take(self) -> Tensor:
        """The sum since the last call, fp64 scalar; starts anew."""
        assert self._products, "no backward pass has run through the chosen parameters"
        total = torch.stack(self._products).sum()
        self._products.clear()
        return total
