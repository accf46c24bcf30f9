"""Predicted losses of any mixture, from a search's surface.json and its data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.schema import Config
from fastmix_mega.data.run_inputs import Inputs, open_inputs
from fastmix_mega.errors import MISSHAPEN, UserError
from fastmix_mega.methods.surface_evidence import SURFACE_FILE
from fastmix_mega.mixture.file import mixture_path, read_mixture, resolve_mixture
from fastmix_mega.mixture.ngram_loss import NgramLossModel, read_counts
from fastmix_mega.mixture.surface import LossSurface, SurfaceConstants, TargetPosterior
from fastmix_mega.reading import read_json

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
    try:
        content: dict[str, Any] = read_json(path)
        if content["schema"] != "fastmix-surface/1" or content["sources"] != config.source_names:
            raise UserError(f"{path} is of another version, or of other sources")
        length = 2 + len(config.sources)
        targets = [
            TargetPosterior(
                _numbers(each["mean"], (length,)), _numbers(each["covariance"], (length, length))
            )
            for each in content["posterior"]
        ]
        if len(targets) != len(config.targets):
            raise ValueError
        constants = SurfaceConstants(**content["constants"])
        given = content["ngrams"]
        reference = _numbers(content["reference"], (length - 2,))
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}; it is written by a search with search.answer: surface"
        ) from None
    except UserError:
        raise
    except MISSHAPEN:
        raise UserError(
            f"{path} is damaged, or is not what a search writes; take it from a copy of the run "
            "folder, or search again in another folder"
        ) from None
    ngrams = None
    if given is not None:
        counts = read_counts(
            inputs.sources,
            inputs.targets,
            inputs.tokenizer.vocab_size,
            given["longest_context"],
        )
        ngrams = NgramLossModel(
            counts, given["budget_tokens"], given["repetitions"], tuple(given["smoothing"])
        )
    return LossSurface(reference, ngrams, targets, constants)


def _numbers(given: Any, shape: tuple[int, ...]) -> FloatArray:
    """Raises: ValueError, TypeError: unless it holds finite numbers of that shape."""
    found = np.array(given, np.float64)
    if found.shape != shape or not np.isfinite(found).all():
        raise ValueError
    return found


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
    search = read_mixture(run_dir / "mixture.json").search
    found = {"uniform": np.full(len(names), 1 / len(names))}
    answer = resolve_mixture(str(run_dir / "mixture.json"), names, tokens, "mixture.json")
    found["answer"] = answer
    try:
        for kind, weights in search.get("evidence", {}).items():
            found[kind] = _numbers([weights[name] for name in names], (len(names),))
    except MISSHAPEN:
        raise UserError(f"{run_dir / 'mixture.json'}: its evidence is damaged") from None
    return found
