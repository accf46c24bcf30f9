"""Whether `search.scores` names parameters that there are, found before the model is built."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from fastmix_mega.config.schema import Config
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError
from fastmix_mega.model.presets import resolve_shape


def scored_parameter_problems(config: Config, scores: str) -> Iterator[str]:
    """A regular expression that is none, or that matches nothing.

    Args:
        config: for the model.
        scores: what `search.scores` means for the method.
    """
    if scores in ("head", "hooks:head", "body", "all"):
        return
    # Only here: these import the libraries of training.
    from fastmix_mega.training.engine.hook_scores import no_such_parameters, select_parameters
    from fastmix_mega.weights.names import parameter_names

    names: dict[str, None] = {}
    # What is wrong with the model or the tokenizer is reported where they are looked at.
    with suppress(UserError):
        shape = resolve_shape(config.model, Tokenizer(config.tokenizer).vocab_size)
        names = dict.fromkeys(parameter_names(shape))
    try:
        chosen = select_parameters(names, scores, config.model.tie_embeddings)
    except UserError as error:
        yield str(error)
        return
    if names and not chosen:
        yield no_such_parameters(scores, names)
