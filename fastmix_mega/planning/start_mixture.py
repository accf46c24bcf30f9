"""`fastmix check --start`: the mixture that a run would begin with, without a run."""

from __future__ import annotations

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.schema import Config
from fastmix_mega.data.run_inputs import Inputs, open_inputs
from fastmix_mega.methods.base import OpenedData
from fastmix_mega.methods.fastmix import FastMix
from fastmix_mega.methods.registry import method_of
from fastmix_mega.methods.start import (
    begins_with_bigrams,
    bigram_mixture,
    budget_tokens,
    search_start,
)
from fastmix_mega.methods.surface_evidence import ngram_answer
from fastmix_mega.mixture.constraints.apply import epochs_at
from fastmix_mega.quantities import in_epochs
from fastmix_mega.training.run import Verb


def starting_mixture(config: Config, verb: Verb, inputs: Inputs) -> FloatArray:
    """[S] what a search knows before it trains, or what a training begins with, limits included.

    Reads a sample of every source and target where n-gram statistics decide.

    Raises:
        UserError: if it is not possible.
    """
    data = OpenedData(inputs.sources, inputs.targets, inputs.tokenizer.sha256)
    method = method_of(config, verb)
    if not isinstance(method, FastMix):
        return method.preview(data).weights
    if method.takes_surface(data.sources, data.targets):
        return ngram_answer(method.config, inputs)
    bigrams = None
    if begins_with_bigrams(config, data.sources, data.targets):
        bigrams = bigram_mixture(config, inputs)
    return search_start(config, data, bigrams).initial


def describe_start(config: Config, verb: Verb) -> str:
    """The table of the starting mixture: shares, and epochs in this run and at the budget."""
    inputs = open_inputs(config)
    weights = starting_mixture(config, verb, inputs)
    tokens = [source.num_tokens for source in inputs.sources]
    budget = round(budget_tokens(config))
    columns = {"epochs in this run": config.train.tokens}
    if budget != config.train.tokens:
        columns[f"at {budget:,} tokens"] = budget
    epochs = [epochs_at(weights, tokens, at) for at in columns.values()]
    wide = max(6, *map(len, config.source_names))
    title = "the mixture at the start:"
    method = method_of(config, verb)
    if isinstance(method, FastMix) and method.takes_surface(inputs.sources, inputs.targets):
        title = "the mixture that n-gram statistics alone suggest, before any training:"
    lines = [title, f"{'source':<{wide}}   share  {'  '.join(columns)}"]
    for index, name in enumerate(config.source_names):
        cells = []
        for title, epoch in zip(columns, epochs, strict=True):
            times = epoch[index]
            shown = "?" if times is None else in_epochs(times)
            cells.append(shown.rjust(len(title)))
        lines.append(f"{name:<{wide}}  {weights[index]:6.2%}  {'  '.join(cells)}")
    return "\n".join(lines)
