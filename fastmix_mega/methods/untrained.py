"""`method: uniform | proportional | ngram`: mixtures without any training."""

from __future__ import annotations

import numpy as np

from fastmix_mega.config.schema import Config
from fastmix_mega.data.inputs import open_inputs
from fastmix_mega.methods.answer import answer
from fastmix_mega.methods.ngram import ngram_fit
from fastmix_mega.mixture.file import MixtureFile, resolve_mixture


def untrained_mixture(config: Config) -> MixtureFile:
    """The answer of `config.method`.

    Raises:
        UserError: if a file is missing, broken, or too short.
    """
    inputs, warnings = open_inputs(config), []
    if config.method == "ngram":
        fit = ngram_fit(config, inputs)
        weights = fit.shares
        if fit.gap > 1e-4:
            warnings.append(f"The fit ended {fit.gap:.2g} nats per pair from the best one at most.")
    else:
        tokens = [source.num_tokens for source in inputs.sources]
        weights = resolve_mixture(config.method, config.source_names, tokens, "method")
    return answer(config, inputs, np.asarray(weights, np.float64), 0.0, warnings)
