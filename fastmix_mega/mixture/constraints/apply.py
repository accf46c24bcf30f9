"""Constraints on named sources: the bounds they mean, the mixture they give, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.constraints import Constraints, GroupLimits, SourceLimits
from fastmix_mega.errors import UserError
from fastmix_mega.mixture.constraints.solve import (
    ROUNDING,
    Infeasible,
    Node,
    blend,
    divergence,
    project,
)
from fastmix_mega.mixture.file import resolve_mixture


@dataclass(frozen=True)
class Sources:
    """What the constraints speak about."""

    names: Sequence[str]
    tokens: Sequence[int | None]
    """Of each source; None where they are not known."""


@dataclass(frozen=True)
class Bound:
    value: float
    why: str
    """In the words of the constraints, for messages."""


@dataclass(frozen=True)
class Constrained:
    """A mixture that keeps to the constraints."""

    before: FloatArray
    weights: FloatArray
    holding: list[str]
    """The limits at which a source or group stands, in words."""
    epochs: list[float | None]
    """How often each source is read at the budget; None without tokens or budget."""

    @property
    def distance(self) -> float:
        """KL(weights || before) in nats: 0 if nothing changed."""
        return divergence(self.weights, self.before)

    def predicted_cost(self, gains: Sequence[float | None]) -> float | None:
        """Nats by which the target loss is higher with the constraints, to first order.

        Args:
            gains: [S] by how much the target loss falls per unit of a source's share (the
                mixture file's `gain`).
        """
        known = [gain for gain in gains if gain is not None]
        if len(known) < len(gains):
            return None
        return float((self.before - self.weights) @ np.array(known))


class ConstraintSet:
    """Constraints resolved for certain sources; `project` may be called often.

    Raises:
        UserError: if a name is no source, tokens are missing, or two limits contradict each other.
    """

    def __init__(self, constraints: Constraints, sources: Sources, where: str) -> None:
        self.constraints, self.sources, self.where = constraints, sources, where
        unknown = sorted(
            {
                *(*constraints.sources, *constraints.read_tokens),
                *(n for g in constraints.groups.values() for n in g.sources),
            }
            - set(sources.names)
        )
        if unknown:
            raise UserError(
                f"{where}: {', '.join(unknown)} is no source of this mixture; its sources are "
                f"{', '.join(sources.names)}"
            )
        self._bounds = [self._bounds_of(index) for index in range(len(sources.names))]
        self.lower = np.array([lower.value for lower, _ in self._bounds])
        self.upper = np.array([upper.value for _, upper in self._bounds])
        self._names: dict[int, str] = {}
        self.root = self._tree()
        self._prior = None
        if constraints.prior is not None:
            tokens = [count or 0 for count in sources.tokens]
            given = constraints.prior.mixture
            if given == "proportional" and not all(tokens):
                raise UserError(f"{where}: a proportional prior needs the sources' token counts")
            self._prior = resolve_mixture(given, sources.names, tokens, f"{where}: prior.mixture")

    def apply(self, before: FloatArray) -> Constrained:
        """The nearest mixture that keeps to all of them.

        Raises:
            UserError: naming the limits that no mixture can keep together.
        """
        weights = self.project(before)
        budget = self.constraints.budget_tokens
        return Constrained(before, weights, self.holding(weights), self.epochs(weights, budget))

    def project(self, before: FloatArray) -> FloatArray:
        """[S] the nearest mixture. Raises: UserError."""
        wanted = before
        if self._prior is not None and self.constraints.prior is not None:
            wanted = blend(before, self._prior, self.constraints.prior.strength)
            if wanted.sum() <= 0:
                raise UserError(f"{self.where}: the prior and the mixture have no source in common")
        try:
            return project(self.root, wanted, self.lower, self.upper)
        except Infeasible as conflict:
            raise UserError(f"{self.where}: {self._explain(conflict, wanted)}") from None

    def epochs(self, weights: FloatArray, budget: int | None) -> list[float | None]:
        return epochs_at(weights, self.sources.tokens, budget)

    def _bounds_of(self, index: int) -> tuple[Bound, Bound]:
        name, tokens = self.sources.names[index], self.sources.tokens[index]
        limits = self.constraints.sources.get(name, SourceLimits())
        lower, upper = Bound(0.0, ""), Bound(1.0, f"{name} at most all")
        if limits.fixed is not None:
            why = f"{name} fixed at {limits.fixed:.4g}"
            lower, upper = Bound(limits.fixed, why), Bound(limits.fixed, why)
        if limits.min is not None:
            lower = Bound(limits.min, f"{name} at least {limits.min:.4g}")
        if limits.max is not None:
            upper = Bound(limits.max, f"{name} at most {limits.max:.4g}")
        most = limits.max_epochs or self.constraints.max_epochs
        budget = self.constraints.budget_tokens
        if most is not None and budget is not None:
            if tokens is None:
                raise UserError(
                    f"{self.where}: max_epochs needs the number of tokens of {name}, which the "
                    "mixture does not tell"
                )
            read = self.constraints.read_tokens.get(name, 0)
            share = max(0.0, (most * tokens - read) / budget)
            before = f", {read:,} of which were read before" if read else ""
            why = (
                f"{name} at most {share:.4g} ({most:g} epochs of its {tokens:,} tokens within "
                f"{budget:,}{before})"
            )
            if share < upper.value:
                upper = Bound(share, why)
        if lower.value > upper.value + ROUNDING:
            raise UserError(f"{self.where}: {lower.why} contradicts {upper.why}")
        return lower, Bound(max(lower.value, upper.value), upper.why)

    def _tree(self) -> Node:
        """Groups by their nesting; every source stands in its smallest group."""
        groups = sorted(self.constraints.groups.items(), key=lambda item: len(item[1].sources))
        place = {name: index for index, name in enumerate(self.sources.names)}
        free = set(range(len(place)))
        outer: list[tuple[set[int], Node]] = []
        for name, group in groups:
            members = {place[source] for source in group.sources}
            inner = [node for held, node in outer if held <= members]
            outer = [(held, node) for held, node in outer if not held <= members]
            node = Node(*group_limits(group), sorted(members & free), inner)
            free -= members
            self._names[id(node)] = name
            outer.append((members, node))
        root = Node(1.0, 1.0, sorted(free), [node for _, node in outer])
        self._names[id(root)] = ""
        return root

    def holding(self, weights: FloatArray) -> list[str]:
        """The limits at which the mixture stands, in words."""
        found = []
        for weight, (lower, upper) in zip(weights, self._bounds, strict=True):
            if abs(weight - lower.value) < 1e-9 and lower.why:
                found.append(lower.why)
            elif abs(weight - upper.value) < 1e-9:
                found.append(upper.why)
        place = {name: index for index, name in enumerate(self.sources.names)}
        for name, group in self.constraints.groups.items():
            share = float(weights[[place[source] for source in group.sources]].sum())
            lower_share, upper_share = group_limits(group)
            if abs(share - upper_share) < 1e-9 or (
                lower_share > 0 and abs(share - lower_share) < 1e-9
            ):
                found.append(f"group {name} at its limit of {share:.4g}")
        return found

    def _explain(self, conflict: Infeasible, wanted: FloatArray) -> str:
        node = conflict.node
        name = self._names[id(node)]
        whole = f"group {name}" if name else "the mixture"
        inside = sorted(_all_sources(node))
        groups = [self._names[id(group)] for group in node.groups]
        if conflict.smallest > node.upper:
            parts = [self._bounds[index][0].why for index in inside]
            parts += [f"group {group} at least its minimum" for group in groups]
            return (
                f"no mixture keeps to these: {'; '.join(part for part in parts if part)}. "
                f"Together that is at least {conflict.smallest:.4g}, and {whole} holds at most "
                f"{node.upper:.4g}. Lower one of them"
            )
        parts = [self._bounds[index][1].why for index in inside if wanted[index] > 0]
        parts += [f"group {group} at most its maximum" for group in groups]
        zeros = [self.sources.names[index] for index in inside if wanted[index] <= 0]
        hint = f" ({', '.join(zeros)} has weight 0 and stays there: give a min)" if zeros else ""
        return (
            f"no mixture keeps to these: {'; '.join(parts)}. Together that is at most "
            f"{conflict.largest:.4g}, and {whole} needs {node.lower:.4g}{hint}. Raise one of them, "
            f"get more text, or lower budget_tokens{self._largest_budget(conflict, node)}"
        )

    def _largest_budget(self, conflict: Infeasible, node: Node) -> str:
        budget = self.constraints.budget_tokens
        if budget is None or node is not self.root or conflict.largest <= 0:
            return ""
        # Exact if every limit is one of epochs, and a first guess otherwise.
        return f" (to about {int(budget * conflict.largest):,})"


def epochs_at(
    weights: Sequence[float] | FloatArray, tokens: Sequence[int | None], budget: int | None
) -> list[float | None]:
    """How often each source is read in a run of `budget` tokens."""
    return [
        None if budget is None or not count else float(weight) * budget / count
        for weight, count in zip(weights, tokens, strict=True)
    ]


def group_limits(group: GroupLimits) -> tuple[float, float]:
    if group.fixed is not None:
        return group.fixed, group.fixed
    return group.min or 0.0, 1.0 if group.max is None else group.max


def _all_sources(node: Node) -> set[int]:
    return set(node.sources).union(*(_all_sources(group) for group in node.groups))
