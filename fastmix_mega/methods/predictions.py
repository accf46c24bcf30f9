"""Predicted losses of any mixture, from a search's surface.json and its data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.schema import Config
from fastmix_mega.data.run_inputs import Inputs, open_inputs
from fastmix_mega.errors import UserError
from fastmix_mega.mixture.file import mixture_path, resolve_mixture
from fastmix_mega.mixture.ngram_loss import read_counts
from fastmix_mega.mixture.surface import LossSurface
from fastmix_mega.mixture.surface_file import SURFACE_FILE, ngram_model, read_surface_file

SIGMAS = 1.645
"""Half of a 90% interval, in standard deviations."""


def read_surface(run_dir: str | Path, config: Config, inputs: Inputs) -> LossSurface:
    """The posterior of a finished search.

    Args:
        run_dir: its run folder.
        config: of the search.
        inputs: its data, of which the n-grams are counted again.

    Raises:
        UserError: if the search left none.
    """
    path = Path(run_dir) / SURFACE_FILE
    file = read_surface_file(path)
    if file.sources != config.source_names:
        raise UserError(f"{path} is of other sources")
    if file.ngrams is None:
        return file.surface
    given = file.ngrams
    counts = read_counts(
        inputs.sources, inputs.targets, inputs.tokenizer.vocab_size, given["longest_context"]
    )
    ngrams = ngram_model(counts, given)
    surface = file.surface
    return LossSurface(surface.reference, ngrams, surface.targets, surface.constants)


def predict_mixtures(
    run_dir: Path, mixtures: Sequence[str], config: Config | None = None
) -> list[dict[str, Any]]:
    """One row per mixture and target: loss, standard deviation, and the 90% interval.

    Args:
        run_dir: of a finished search.
        mixtures: mixture files, run folders, `uniform` or `proportional`; empty for those that
            the search itself predicted.
        config: of the search; read from the run folder by default.

    Raises:
        UserError: if a file is wrong.
    """
    if config is None:
        from fastmix_mega.config.schema import load_common_config

        config = load_common_config(run_dir / "config.yaml")
    inputs = open_inputs(config)
    found = read_surface(run_dir, config, inputs)
    given = _named(run_dir, mixtures, config, [each.num_tokens for each in inputs.sources])
    predicted = found.predict(np.stack(list(given.values())))
    targets = [target.name for target in config.targets]
    return [
        {
            "mixture": name,
            "target": target,
            "loss": round(float(mean), 5),
            "deviation": round(float(deviation), 5),
            "low": round(float(mean - SIGMAS * deviation), 5),
            "high": round(float(mean + SIGMAS * deviation), 5),
        }
        for name, means, deviations in zip(given, predicted.mean, predicted.deviation, strict=True)
        for target, mean, deviation in zip(targets, means, deviations, strict=True)
    ]


def _named(
    run_dir: Path, mixtures: Sequence[str], config: Config, tokens: list[int]
) -> dict[str, FloatArray]:
    """[S] by name."""
    names = config.source_names
    if mixtures:
        return {
            each: resolve_mixture(
                each if each in ("uniform", "proportional") else str(mixture_path(each)),
                names,
                tokens,
                "--mixture",
            )
            for each in mixtures
        }
    search = json.loads((run_dir / "mixture.json").read_bytes())["search"]
    found = {"uniform": np.full(len(names), 1 / len(names))}
    answer = resolve_mixture(str(run_dir / "mixture.json"), names, tokens, "mixture.json")
    found["answer"] = answer
    for kind, weights in search.get("evidence", {}).items():
        found[kind] = np.array([weights[name] for name in names])
    return found
