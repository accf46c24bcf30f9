"""Where a search begins: its first mixture, its limits, and what it keeps of an old one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.schema import Config
from fastmix_mega.data.inputs import Inputs
from fastmix_mega.data.rows import Source, any_masked
from fastmix_mega.errors import UserError
from fastmix_mega.methods.fastmix import STEP, STEP_FROM_PAIRS
from fastmix_mega.mixture.bigram import first_mixture
from fastmix_mega.mixture.constraints.apply import Constrained, ConstraintSet, Sources
from fastmix_mega.mixture.constraints.tied_limits import TiedConstraintSet
from fastmix_mega.mixture.file import resolve_mixture
from fastmix_mega.mixture.reuse import Reuse, resolve_reuse

LIMITS = "search.constraints"
TOKEN_PAIRS = "token_pairs"


@dataclass(frozen=True)
class SearchStart:
    """Equal on every process."""

    initial: FloatArray
    """[S] within the constraints."""
    constraints: ConstraintSet | TiedConstraintSet | None
    limited: Constrained | None
    """What the constraints made of the first mixture; None without any."""
    reuse: Reuse | None
    step: float
    """Of the rule; see `search.step`."""
    epochs: FloatArray
    """[S] how often each source would be read at the budget if it were the only one."""
    from_pairs: bool
    """Whether token pairs chose the first mixture."""


def initial_or_uniform(config: Config) -> str | dict[str, float]:
    """`search.initial` of a method that does not begin with token pairs."""
    return "uniform" if config.search.initial == "auto" else config.search.initial


def may_begin_with_token_pairs(config: Config) -> bool:
    """As far as the configuration tells: what sources and targets hold decides the rest."""
    search = config.search
    unguided = search.reuse is None and search.initial in ("auto", TOKEN_PAIRS)
    return config.method == "fastmix" and unguided


def begins_with_token_pairs(
    config: Config, sources: Sequence[Source], targets: Sequence[Source]
) -> bool:
    """Whether the first mixture is that of token pairs.

    Raises:
        UserError: if that is asked for where it cannot be.
    """
    search = config.search
    text = not any_masked([*sources, *targets])
    if search.initial == "auto":
        return may_begin_with_token_pairs(config) and text and bool(targets)
    if search.initial != TOKEN_PAIRS:
        return False
    if config.method != "fastmix":
        raise UserError(f"search.initial: {TOKEN_PAIRS} needs method: fastmix")
    if not text:
        raise UserError(
            f"search.initial: {TOKEN_PAIRS} compares text, where every token counts; sources or "
            "targets here hold conversations: give `uniform` or a mixture"
        )
    return True


def token_pairs(config: Config, inputs: Inputs) -> FloatArray:
    """[S] what token pairs say, before constraints. Reads a sample of every source and target.

    Raises:
        UserError: if one holds no sequence at all.
    """
    weights = np.array([target.weight for target in config.targets], np.float64)
    return first_mixture(
        inputs.sources,
        inputs.targets,
        weights,
        inputs.tokenizer.vocab_size,
        _budget(config),
        config.search.repetitions,
    )


def search_start(
    config: Config,
    sources: Sequence[Source],
    tokenizer_sha256: str,
    pairs: FloatArray | None = None,
) -> SearchStart:
    """Resolve `search.initial`, `search.reuse` and `search.constraints`.

    Args:
        config: of a search.
        sources: opened, in the configuration's order.
        tokenizer_sha256: of the search's tokenizer.
        pairs: [S] `token_pairs`, if the search begins with them.

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
    elif pairs is not None:
        initial = pairs
    else:
        initial = resolve_mixture(initial_or_uniform(config), names, tokens, "search.initial")
    step = (STEP if pairs is None else STEP_FROM_PAIRS) if search.step is None else search.step
    epochs = _budget(config) / np.array(tokens, np.float64)
    from_pairs = pairs is not None
    if search.constraints is None:
        return SearchStart(initial, None, None, reuse, step, epochs, from_pairs)
    if config.method != "fastmix":
        raise UserError("search.constraints needs method: fastmix")
    of = Sources(names, tokens)
    constraints = (
        ConstraintSet(search.constraints, of, LIMITS)
        if reuse is None
        else TiedConstraintSet(search.constraints, of, LIMITS, reuse.tied)
    )
    limited = constraints.apply(initial)
    return SearchStart(limited.weights, constraints, limited, reuse, step, epochs, from_pairs)


def _budget(config: Config) -> float:
    """In tokens: the large run's where it is known, else the search's own."""
    limits, train = config.search.constraints, config.train
    if limits is not None and limits.budget_tokens is not None:
        return float(limits.budget_tokens)
    return float(train.tokens)
