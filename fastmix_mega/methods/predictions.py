"""Predicted losses of any mixture, from a search's surface.json and its data."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.schema import Config
from fastmix_mega.data.run_inputs import Inputs, open_inputs
from fastmix_mega.errors import UserError
from fastmix_mega.methods.run_evidence import read_runs
from fastmix_mega.methods.surface_evidence import (
    SIGMAS,
    SURFACE_FILE,
    SURFACE_SCHEMA,
    surface_answer,
)
from fastmix_mega.mixture.file import mixture_path, resolve_mixture
from fastmix_mega.mixture.ngram_loss import NgramLossModel, read_counts
from fastmix_mega.mixture.surface import LossSurface, SurfaceConstants
from fastmix_mega.mixture.surface_fit import Evidence, Slopes, fit
from fastmix_mega.mixture.surface_values import Values

BEST = "best with evidence"
"""Of the mixtures that are predicted: the least loss once more runs are known."""


@dataclass(frozen=True)
class Recorded:
    """What a search left of its surface."""

    reference: FloatArray
    ngrams: NgramLossModel | None
    evidence: list[Evidence]
    values: Values | None
    constants: SurfaceConstants

    def with_runs(self, more: Values | None) -> LossSurface:
        """The posterior, with more finished runs."""
        values = self.values
        if more is not None:
            values = more if values is None else values.and_also(more)
        return fit(self.reference, self.ngrams, self.evidence, values, self.constants)


def read_surface(run_dir: str | Path, config: Config, inputs: Inputs) -> LossSurface:
    """The posterior of a finished search.

    Args:
        run_dir: its run folder.
        config: of the search.
        inputs: its data, of which the n-grams are counted again.

    Raises:
        UserError: if the search left none.
    """
    return read_evidence(run_dir, config, inputs).with_runs(None)


def read_evidence(run_dir: str | Path, config: Config, inputs: Inputs) -> Recorded:
    """As `read_surface`, for the evidence that the posterior is made of."""
    path = Path(run_dir) / SURFACE_FILE
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        if content["schema"] != SURFACE_SCHEMA or content["sources"] != config.source_names:
            raise UserError(
                f"{path} is of another version, or of other sources; search again in another folder"
            )
        evidence = [_evidence(each) for each in content["evidence"]]
        constants = SurfaceConstants(**content["constants"])
        values = None if content["runs"] is None else _values(content["runs"])
        given, reference = content["ngrams"], np.array(content["reference"])
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}; it is written by a search with search.answer: surface"
        ) from None
    except UserError:
        raise
    except (ValueError, KeyError, TypeError):
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
    return Recorded(reference, ngrams, evidence, values, constants)


def _evidence(given: dict[str, Any]) -> Evidence:
    slopes = given["slopes"]
    if slopes is None:
        return Evidence(given["level"])
    return Evidence(given["level"], Slopes(**{name: np.array(slopes[name]) for name in slopes}))


def _values(given: dict[str, Any]) -> Values:
    losses = np.array(given["losses"], np.float64)  # None becomes NaN.
    return Values(np.array(given["mixtures"]), losses, np.array(given["groups"], np.int64))


def predict_mixtures(
    run_dir: Path,
    mixtures: Sequence[str],
    config: Config | None = None,
    evidence: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """One row per mixture and target: loss, standard deviation, and the 90% interval.

    Args:
        run_dir: of a finished search.
        mixtures: mixture files, run folders, `uniform` or `proportional`; empty for those that
            the search itself predicted.
        config: of the search; read from the run folder by default.
        evidence: more finished runs, as in `search.evidence`.

    Raises:
        UserError: if a file is wrong.
    """
    if config is None:
        from fastmix_mega.config.schema import load_common_config

        config = load_common_config(run_dir / "config.yaml")
    inputs = open_inputs(config)
    recorded = read_evidence(run_dir, config, inputs)
    given = _named(run_dir, mixtures, config, [each.num_tokens for each in inputs.sources])
    runs = read_runs(evidence, config, inputs.tokenizer.sha256) if evidence else None
    found = recorded.with_runs(None if runs is None else runs.values)
    if runs is not None:
        print("\n".join([*runs.facts, *runs.warnings]), file=sys.stderr)
        given[BEST] = surface_answer(config, inputs, found)
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
            "weights": {
                source: round(float(share), 6)
                for source, share in zip(config.source_names, given[name], strict=True)
            },
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
