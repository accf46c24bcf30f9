"""Go on from an old mixture when sources were added, removed, split or changed.

Sources that are the same as before keep their ratios and move as one group; everything else is
searched (`search.reuse`). This module finds out which is which, and the mixture to begin with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from os.path import normpath
from typing import Any

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.reuse import ReuseSection
from fastmix_mega.config.sections import SearchSection
from fastmix_mega.data.rows import Source
from fastmix_mega.errors import UserError
from fastmix_mega.mixture.file import MixtureFile, MixtureSource, mixture_path, read_mixture
from fastmix_mega.mixture.simplex import sampling_distribution
from fastmix_mega.mixture.tied_sources import TiedSources

WHERE = "search.reuse"
NO_WEIGHT = f"{WHERE}: the untouched sources had no weight; search without search.reuse"


@dataclass(frozen=True)
class Reuse:
    """What an old mixture means for the sources of a new search."""

    old: MixtureFile
    initial: FloatArray
    """[S] the mixture to begin with."""
    tied: TiedSources
    names: list[str]
    kept: dict[str, str]
    """Untouched sources by name, with their names in the old mixture."""
    free: dict[str, str]
    """Searched sources by name, with the reason."""
    removed: list[str]
    """Sources of the old mixture that are no longer there."""
    notes: list[str] = field(default_factory=list)
    """What the user should know."""

    def lines(self, search: SearchSection, steps: int) -> list[str]:
        """What `fastmix check` says."""
        share = float(self.initial[self.tied.kept].sum())
        lines = [
            f"reuse: {len(self.kept)} sources keep their ratios and begin with {share:.1%} "
            f"together: {', '.join(self.kept)}"
        ]
        for name, reason in self.free.items():
            start = self.initial[self.names.index(name)]
            lines.append(f"reuse: {name} is searched ({reason}), from {start:.1%}")
        if self.removed:
            gone = sum(each.weight for each in self.old.sources if each.name in self.removed)
            lines.append(
                f"reuse: gone are {', '.join(self.removed)}; their {gone:.1%} went to the others "
                "in proportion"
            )
        enough = self.enough_steps(search)
        if self.free and enough is not None and enough < steps:
            lines.append(
                f"reuse: {enough} steps instead of {steps} would score every searched source as "
                "often as the old search scored its sources on average"
            )
        return lines

    def enough_steps(self, search: SearchSection) -> int | None:
        """Steps after which each searched source is scored as often as an average one was before.

        The old search drew a source in one of S samples on average; this one draws the searched
        sources oftener, since the untouched ones share one part of the exploration.
        """
        before = self.old.search.get("steps")
        if not isinstance(before, int) or not self.free:
            return None
        distribution = sampling_distribution(
            self.initial, search.exploration, self.tied.even_distribution
        )
        least = float(distribution[self.tied.free].min())
        return search.warmup_steps() + int(
            np.ceil(before / len(self.old.sources) / max(least, 1e-12))
        )

    def record(self, path: str, tokens: int, cost: float) -> dict[str, Any]:
        """For mixture.json.

        Args:
            path: of the old mixture.
            tokens: that this search trained on.
            cost: of this search, in proxy runs of its own length.
        """
        found: dict[str, Any] = {
            "mixture": path,
            "kept": self.kept,
            "searched": self.free,
            "removed": self.removed,
        }
        before = self.old.search
        old_tokens, old_cost = before.get("train_tokens"), before.get("cost_in_proxy_runs")
        if isinstance(old_tokens, int) and isinstance(old_cost, float | int) and old_tokens:
            found["cost_in_old_searches"] = round(tokens * cost / (old_tokens * old_cost), 4)
        return found


def resolve_reuse(given: ReuseSection, sources: Sequence[Source], tokenizer_sha256: str) -> Reuse:
    """Match the sources with those of the old mixture.

    A source is untouched if it has an old one's name or all its files, and nothing says that its
    data are others. Sources that together have the files of one old source are its parts.

    Raises:
        UserError: if the tokenizers differ, a name is wrong, or nothing is untouched.
    """
    old = read_mixture(mixture_path(given.mixture))
    notes = _same_tokenizer(old, given, tokenizer_sha256)
    names = [source.name for source in sources]
    before = {source.name: source for source in old.sources}
    now = dict(zip(names, sources, strict=True))
    _check_names(given, before, names)
    parts = {part: whole for whole, members in given.splits.items() for part in members}
    kept: dict[str, str] = {}
    free: dict[str, str] = {}
    for name in names:
        if name in parts:
            free[name] = f"part of {parts[name]}"
        elif name in before:
            reason = None if name in given.keep else _changed(before[name], now[name])
            if name in given.free:
                reason = "asked for"
            if reason is None:
                kept[name] = name
            else:
                free[name] = reason
    gone = [name for name in before if name not in now and name not in given.splits]
    for name in list(gone):
        unclaimed = [each for each in names if each not in {*kept, *free}]
        successors = _successors(before[name], unclaimed, now)
        if len(successors) == 1 and successors[0] not in given.free:
            kept[successors[0]] = name
            notes.append(f"{successors[0]} has the files of {name} and takes its place")
        elif successors:
            for successor in successors:
                parts[successor] = name
                free[successor] = f"part of {name}, by its files"
        else:
            continue
        gone.remove(name)
    for name in names:
        if name not in kept:
            free.setdefault(name, "new")
    if not kept:
        raise UserError(
            f"{WHERE}: no source is the same as in {given.mixture}; search without search.reuse"
        )
    if not free:
        notes.append(
            "no source is to be searched: the mixture will stay as it is. Name sources in "
            "search.reuse.free, or take the old mixture"
        )
    initial = _initial(names, now, before, kept, free, parts)
    return Reuse(old, initial, _tied(names, before, kept), names, kept, free, gone, notes)


def _same_tokenizer(old: MixtureFile, given: ReuseSection, sha256: str) -> list[str]:
    known = old.tokenizer.get("sha256")
    if known is None:
        return [f"{given.mixture} tells no tokenizer: make sure that it is the same"]
    if known != sha256:
        raise UserError(
            f"{WHERE}: {given.mixture} was found with another tokenizer ({str(known)[:12]}... "
            f"instead of {sha256[:12]}...); shares of tokens cannot be carried over, search anew"
        )
    return []


def _check_names(
    given: ReuseSection, before: dict[str, MixtureSource], names: Sequence[str]
) -> None:
    for whole, members in given.splits.items():
        if whole not in before:
            raise UserError(
                f"{WHERE}.splits: {whole} is no source of {given.mixture}; its sources are "
                f"{', '.join(before)}"
            )
        for part in members:
            if part in before and part != whole:
                raise UserError(
                    f"{WHERE}.splits: {part} was a source of its own in {given.mixture}; give the "
                    f"part of {whole} another name"
                )
    asked = (*given.free, *given.keep, *(name for part in given.splits.values() for name in part))
    unknown = sorted(set(asked) - set(names))
    if unknown:
        raise UserError(
            f"{WHERE}: {', '.join(unknown)} is no source of this search; its sources are "
            f"{', '.join(names)}"
        )


def _changed(old: MixtureSource, new: Source) -> str | None:
    """Why the data of the same name are others; None if nothing says so."""
    digests = data_digests(new)
    if old.data_sha256 is not None and digests is not None:
        return None if sorted(old.data_sha256) == sorted(digests) else "its data changed"
    if old.tokens is not None and old.tokens != new.num_tokens:
        return f"it had {old.tokens:,} tokens and has {new.num_tokens:,}"
    return None


def data_digests(source: Source) -> list[str] | None:
    """SHA-256 of each file's tokens and loss mask, from the manifests; None if one has none."""
    manifests = [file.manifest for file in source.files]
    found = [manifest.content_sha256 for manifest in manifests if manifest is not None]
    return found if len(found) == len(manifests) else None


def _successors(old: MixtureSource, names: Sequence[str], now: dict[str, Source]) -> list[str]:
    """New sources that together have exactly the files of an old one."""
    for files, of in (
        (old.data_sha256, data_digests),
        ([old.prefix] if isinstance(old.prefix, str) else old.prefix, _prefixes),
    ):
        if not files:
            continue
        wanted = {normpath(each) for each in files}
        found = {name: {normpath(each) for each in of(now[name]) or ()} for name in names}
        successors = [name for name, held in found.items() if held and held <= wanted]
        if successors and set().union(*(found[name] for name in successors)) == wanted:
            return successors
    return []


def _prefixes(source: Source) -> list[str]:
    return [file.prefix for file in source.files]


def _initial(
    names: Sequence[str],
    now: dict[str, Source],
    before: dict[str, MixtureSource],
    kept: dict[str, str],
    free: dict[str, str],
    parts: dict[str, str],
) -> FloatArray:
    """[S] old weights; a part's by its tokens, so that all text of the whole is read as often; a
    new source's share is an even one of all sources."""
    weights = np.zeros(len(names))
    for at, name in enumerate(names):
        if name in parts:
            siblings = [each for each, whole in parts.items() if whole == parts[name]]
            whole_tokens = sum(now[each].num_tokens for each in siblings)
            share = now[name].num_tokens / max(1, whole_tokens)
            weights[at] = before[parts[name]].weight * share
        elif name in before or name in kept:
            weights[at] = before[kept.get(name, name)].weight
    new = [at for at, name in enumerate(names) if free.get(name) == "new"]
    if weights.sum() <= 0:
        raise UserError(NO_WEIGHT)
    weights *= (1 - len(new) / len(names)) / weights.sum()
    weights[new] = 1 / len(names)
    return weights


def _tied(
    names: Sequence[str], before: dict[str, MixtureSource], kept: dict[str, str]
) -> TiedSources:
    held = np.array([name in kept for name in names])
    found = [before[kept[name]] if name in kept else None for name in names]
    weights = np.array([0.0 if each is None else each.weight for each in found])
    errors = np.array([0.0 if each is None else each.stderr for each in found])
    total = weights.sum()
    if total <= 0:
        raise UserError(NO_WEIGHT)
    return TiedSources(weights / total, errors / total, held)
