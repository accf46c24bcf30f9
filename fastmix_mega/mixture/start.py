"""Where a search begins: its first mixture, its limits, and what it keeps of an old one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastmix_mega.config import Config
from fastmix_mega.constraints.apply import Constrained, ConstraintSet, Sources
from fastmix_mega.constraints.tied import TiedConstraintSet
from fastmix_mega.data.rows import Source
from fastmix_mega.errors import UserError
from fastmix_mega.mixture.file import resolve_mixture
from fastmix_mega.mixture.reuse import Reuse, resolve_reuse
from fastmix_mega.mixture.rule import FloatArray

LIMITS = "search.constraints"


@dataclass(frozen=True)
class SearchStart:
    """Equal on every process: it depends on the configuration and its files alone."""

    initial: FloatArray
    """[S] within the constraints."""
    constraints: ConstraintSet | TiedConstraintSet | None
    limited: Constrained | None
    """What the constraints made of the first mixture; None without any."""
    reuse: Reuse | None


def search_start(config: Config, sources: Sequence[Source], tokenizer_sha256: str) -> SearchStart:
    """Resolve `search.initial`, `search.reuse` and `search.constraints`.

    Args:
        config: of a search.
        sources: opened, in the configuration's order.
        tokenizer_sha256: of the search's tokenizer.

    Raises:
        UserError: if a file is wrong, or no mixture keeps to the constraints.
    """
    names, tokens = config.source_names, [source.num_tokens for source in sources]
    search = config.search
    reuse = None
    if search.reuse is not None:
        if config.method != "fastmix":
            raise UserError("search.reuse needs method: fastmix")
        reuse = resolve_reuse(search.reuse, sources, tokenizer_sha256)
        initial = reuse.initial
    else:
        initial = resolve_mixture(search.initial, names, tokens, "search.initial")
    if search.constraints is None:
        return SearchStart(initial, None, None, reuse)
    if config.method != "fastmix":
        raise UserError("search.constraints needs method: fastmix")
    of = Sources(names, tokens)
    constraints = (
        ConstraintSet(search.constraints, of, LIMITS)
        if reuse is None
        else TiedConstraintSet(search.constraints, of, LIMITS, reuse.tied)
    )
    limited = constraints.apply(initial)
    return SearchStart(limited.weights, constraints, limited, reuse)
