"""Where a trajectory begins: its first mixture, its limits, and what it keeps of an old mixture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.schema import Config
from fastmix_mega.config.sections import BIGRAM
from fastmix_mega.data.rows import Source, any_masked
from fastmix_mega.data.run_inputs import Inputs
from fastmix_mega.errors import UserError
from fastmix_mega.methods.base import OpenedData, given_initial, target_weights
from fastmix_mega.mixture.bigram import first_mixture
from fastmix_mega.mixture.constraints.apply import Constrained, ConstraintSet, Sources
from fastmix_mega.mixture.constraints.tied_limits import TiedConstraintSet
from fastmix_mega.mixture.reuse import Reuse, resolve_reuse
from fastmix_mega.training.run import Run

LIMITS = "search.constraints"
STEP = 0.2
"""Of the logarithms of the weights, from a first mixture that knows nothing of the targets."""
STEP_FROM_BIGRAMS = 0.02
"""From the bigram mixture, which knows most of what the scores know."""


@dataclass(frozen=True)
class SearchStart:
    """Where a search begins; equal on every process."""

    initial: FloatArray
    """[S] within the constraints."""
    constraints: ConstraintSet | TiedConstraintSet | None
    limited: Constrained | None
    """What the constraints made of the first mixture; None without any."""
    reuse: Reuse | None
    from_bigrams: bool
    """Whether bigram statistics chose the first mixture."""


def may_begin_with_bigrams(config: Config) -> bool:
    """As far as the configuration says: what sources and targets hold decides the rest."""
    search = config.search
    return search.reuse is None and search.initial in ("auto", BIGRAM)


def begins_with_bigrams(
    config: Config, sources: Sequence[Source], targets: Sequence[Source]
) -> bool:
    """Whether the first mixture is that of bigram statistics.

    Raises:
        UserError: if that is asked for where it cannot be.
    """
    search = config.search
    text = not any_masked([*sources, *targets])
    if search.initial == "auto":
        return may_begin_with_bigrams(config) and text and bool(targets)
    if search.initial != BIGRAM:
        return False
    if not text:
        raise UserError(
            f"search.initial: {BIGRAM} compares text, where every token counts; sources or "
            "targets here hold conversations: give `uniform` or a mixture"
        )
    return True


def bigram_mixture(config: Config, inputs: Inputs) -> FloatArray:
    """[S] what bigram statistics suggest, before constraints.

    Reads a sample of every source and target.

    Raises:
        UserError: if one holds no sequence at all.
    """
    return first_mixture(
        inputs.sources,
        inputs.targets,
        target_weights(config),
        inputs.tokenizer.vocab_size,
        budget_tokens(config),
        config.search.repetitions,
    )


def bigram_mixture_together(run: Run) -> FloatArray | None:
    """[S] what the search begins with if bigram statistics decide. Collective: rank 0 reads for
    all, and its sums are everyone's."""
    inputs, layout = run.inputs, run.layout
    if not begins_with_bigrams(run.config, inputs.sources, inputs.targets):
        return None
    import torch

    received = torch.zeros(len(inputs.sources), dtype=torch.float64)
    if layout.is_main:
        received = torch.from_numpy(bigram_mixture(run.config, inputs))
    mixture: FloatArray = layout.broadcast_from_main(received.to(layout.device)).cpu().numpy()
    return mixture


def search_start(config: Config, data: OpenedData, bigrams: FloatArray | None) -> SearchStart:
    """Resolve `search.initial`, `search.reuse` and `search.constraints`.

    Args:
        config: of a search.
        data: opened.
        bigrams: [S] the bigram mixture, if the search begins with it.

    Raises:
        UserError: if a file is wrong, or no mixture keeps to the constraints.
    """
    names, search = config.source_names, config.search
    reuse = None
    if search.reuse is not None:
        reuse = resolve_reuse(search.reuse, data.sources, data.tokenizer_sha256)
        initial = reuse.initial
    elif bigrams is not None:
        initial = bigrams
    else:
        initial = given_initial(config, data)
    from_bigrams = bigrams is not None
    if search.constraints is None:
        return SearchStart(initial, None, None, reuse, from_bigrams)
    of = Sources(names, data.tokens)
    constraints = (
        ConstraintSet(search.constraints, of, LIMITS)
        if reuse is None
        else TiedConstraintSet(search.constraints, of, LIMITS, reuse.tied)
    )
    limited = constraints.apply(initial)
    return SearchStart(limited.weights, constraints, limited, reuse, from_bigrams)


def budget_tokens(config: Config) -> float:
    """The large run's where it is known, else the search's own."""
    limits = config.search.constraints
    if limits is not None and limits.budget_tokens is not None:
        return float(limits.budget_tokens)
    return float(config.train.tokens)
