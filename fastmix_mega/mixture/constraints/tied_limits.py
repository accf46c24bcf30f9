"""Limits on a mixture in which some sources keep their ratios: the same limits on fewer shares.

A limit on a source of the group is a limit on the group's share, since the source's share is that
share times its ratio. So the problem is the projection of `constraints.solve` again, with one
source in the group's place, and its answer is exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.constraints import Constraints, GroupLimits, Prior, SourceLimits
from fastmix_mega.errors import UserError
from fastmix_mega.mixture.constraints.apply import Constrained, ConstraintSet, Sources, group_limits
from fastmix_mega.mixture.constraints.solve import ROUNDING
from fastmix_mega.mixture.file import resolve_mixture
from fastmix_mega.mixture.tied_sources import TiedSources


class TiedConstraintSet:
    """As `ConstraintSet`, for mixtures whose tied sources keep their ratios.

    Raises:
        UserError: as `ConstraintSet`, and if a group holds a part of the tied sources and others.
    """

    def __init__(
        self, constraints: Constraints, sources: Sources, where: str, tied: TiedSources
    ) -> None:
        self.constraints, self.sources, self.where, self.tied = constraints, sources, where, tied
        # Finds wrong names, missing tokens and what contradicts itself without the ratios.
        whole = ConstraintSet(constraints, sources, where)
        self._whole = whole
        names = [sources.names[index] for index in tied.free]
        self.group = _other_than("untouched", names)
        low, high = self._bounds(whole)
        limits = {
            name: SourceLimits(min=float(whole.lower[index]), max=float(whole.upper[index]))
            for name, index in zip(names, tied.free, strict=True)
        }
        limits[self.group] = SourceLimits(min=low, max=high)
        tokens = [None, *(sources.tokens[index] for index in tied.free)]
        self._shares = ConstraintSet(
            Constraints(sources=limits, groups=self._groups(), prior=self._prior()),
            Sources([self.group, *names], tokens),
            where,
        )

    def apply(self, before: FloatArray) -> Constrained:
        """The nearest mixture with these ratios that keeps to all limits. Raises: UserError."""
        weights = self.project(before)
        budget = self.constraints.budget_tokens
        holding = self._whole.holding(weights)
        return Constrained(before, weights, holding, self._whole.epochs(weights, budget))

    def project(self, before: FloatArray) -> FloatArray:
        """[S] the nearest mixture with these ratios. Raises: UserError."""
        return self.tied.expand(self._shares.project(self.tied.contract(before)))

    def _bounds(self, whole: ConstraintSet) -> tuple[float, float]:
        """Limits of the group's share, from those of its sources and of groups inside it."""
        low, high, why_low, why_high = 0.0, 1.0, "", ""
        parts = [
            ([name], float(whole.lower[index]), float(whole.upper[index]))
            for index, name in enumerate(self.sources.names)
            if self.tied.kept[index]
        ]
        parts += [
            (group.sources, *group_limits(group))
            for group in self.constraints.groups.values()
            if self._kept(group.sources) == len(group.sources)
        ]
        for members, lower, upper in parts:
            ratio = sum(self.tied.ratios[self._place(name)] for name in members)
            shown = "+".join(members)
            if ratio <= 0:
                if lower > 0:
                    raise UserError(
                        f"{self.where}: {shown} had no weight and keeps it, so that it cannot have "
                        f"{lower:.4g}; name it in search.reuse.free"
                    )
                continue
            if lower / ratio > low:
                low, why_low = lower / ratio, f"{shown} at least {lower:.4g}"
            if upper / ratio < high:
                high, why_high = upper / ratio, f"{shown} at most {upper:.4g}"
        if low > high + ROUNDING or low > 1 + ROUNDING:
            reasons = " and ".join(why for why in (why_low, why_high) if why)
            raise UserError(
                f"{self.where}: the untouched sources keep their ratios, and cannot then keep to "
                f"{reasons}; change one, or name its sources in search.reuse.free"
            )
        low = min(low, 1.0)
        return low, max(low, high)

    def _groups(self) -> dict[str, GroupLimits]:
        """The groups that hold free sources, with one name for all tied ones."""
        found = {}
        for name, group in self.constraints.groups.items():
            kept = self._kept(group.sources)
            if kept == len(group.sources):
                continue
            if kept not in (0, int(self.tied.kept.sum())):
                some = [each for each in group.sources if self.tied.kept[self._place(each)]]
                raise UserError(
                    f"{self.where}: the group {name} holds some of the untouched sources "
                    f"({', '.join(some)}) beside searched ones; let it hold all of them or none, "
                    "or name them in search.reuse.free"
                )
            members = [each for each in group.sources if not self.tied.kept[self._place(each)]]
            members = [self.group, *members] if kept else members
            found[name] = group.model_copy(update={"sources": members})
        return found

    def _prior(self) -> Prior | None:
        """The prior over the shares: for the group, the share at which its distance is least."""
        prior = self.constraints.prior
        if prior is None:
            return None
        tokens = [count or 0 for count in self.sources.tokens]
        where = f"{self.where}: prior.mixture"
        given = resolve_mixture(prior.mixture, self.sources.names, tokens, where)
        held = self.tied.kept & (self.tied.ratios > 0)
        ratios = self.tied.ratios[held]
        share = 0.0
        if (given[held] > 0).all():
            share = float(np.exp((ratios * np.log(given[held] / ratios)).sum()))
        shares = np.array([share, *given[~self.tied.kept]])
        if shares.sum() <= 0:
            raise UserError(f"{self.where}: the prior and the mixture have no source in common")
        names = [self.group, *(self.sources.names[index] for index in self.tied.free)]
        weights = dict(zip(names, (shares / shares.sum()).tolist(), strict=True))
        return Prior(mixture=weights, strength=prior.strength)

    def _place(self, name: str) -> int:
        return list(self.sources.names).index(name)

    def _kept(self, names: Sequence[str]) -> int:
        return sum(bool(self.tied.kept[self._place(name)]) for name in names)


def _other_than(name: str, names: Sequence[str]) -> str:
    while name in names:
        name += "_"
    return name
