"""surface.json: a search's loss surface, by name, complete enough to be used without its data.

The n-grams themselves stay with the data. In their place stands a model of a few of them
(`fewer_ngrams`), which foretells the same losses within an error that is written beside it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csc_array, csr_array

from fastmix_mega.arrays import FloatArray
from fastmix_mega.errors import UserError
from fastmix_mega.files import write_atomic
from fastmix_mega.mixture.bigram import most_shares
from fastmix_mega.mixture.fewer_ngrams import fewer_ngrams
from fastmix_mega.mixture.ngram_loss import Level, NgramCounts, NgramLossModel
from fastmix_mega.mixture.surface import LossSurface, SurfaceConstants, TargetPosterior

SURFACE_FILE = "surface.json"
"""In the run folder."""
SCHEMA = "fastmix-surface/1"


@dataclass(frozen=True)
class SurfaceFile:
    """What the file holds."""

    content: dict[str, Any]
    """As it was read."""
    sources: list[str]
    targets: list[str]
    target_weights: FloatArray
    """[K] of the objective."""
    most_share: FloatArray | None
    """[S] above which a source is read beyond reason; None of an older search."""
    ngrams: dict[str, Any] | None
    """Settings of the n-gram loss model; None where it says nothing."""
    surface: LossSurface
    """With the few n-grams, or with none."""
    whole: bool
    """Whether the surface says all that it knows: None of its n-grams are missing."""


def write_surface(
    path: Path,
    names: tuple[Sequence[str], Sequence[str]],
    found: LossSurface,
    target_weights: FloatArray,
    tokens: tuple[FloatArray, float],
    anchors: FloatArray,
    seed: int = 0,
) -> None:
    """Write a surface.

    Args:
        path: of surface.json.
        names: of the sources and of the targets.
        found: the posterior.
        target_weights: [K].
        tokens: [S] of the sources, and the budget that the surface is for.
        anchors: [N, S] mixtures at which the few n-grams must be right.
        seed: of their choice.
    """
    ngrams = found.ngrams
    content = {
        "schema": SCHEMA,
        "sources": list(names[0]),
        "targets": list(names[1]),
        "target_weights": target_weights.tolist(),
        "most_share": most_shares(*tokens, None if ngrams is None else ngrams.read).tolist(),
        "reference": found.reference.tolist(),
        "constants": vars(found.constants),
        "ngrams": None
        if ngrams is None
        else {
            "longest_context": len(ngrams.counts.levels),
            "budget_tokens": ngrams.budget,
            "repetitions": ngrams.repetitions,
            "smoothing": list(ngrams.smoothing),
            "read_tokens": None if ngrams.read is None else ngrams.read.tolist(),
        },
        "few_ngrams": None if ngrams is None else _few(ngrams, anchors, seed),
        "posterior": [
            {"mean": each.mean.tolist(), "covariance": each.covariance.tolist()}
            for each in found.targets
        ],
    }
    write_atomic(path, json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")


def read_surface_file(path: Path) -> SurfaceFile:
    """Read and check a surface.

    Raises:
        UserError: if there is none, or it is not what a search writes.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        if content["schema"] != SCHEMA:
            raise UserError(f"{path} is of another version")
        targets = [
            TargetPosterior(np.array(each["mean"]), np.array(each["covariance"]))
            for each in content["posterior"]
        ]
        reference, given = np.array(content["reference"]), content["ngrams"]
        few, most = content.get("few_ngrams"), content.get("most_share")
        ngrams = None if given is None or few is None else _model(given, few)
        found = LossSurface(reference, ngrams, targets, SurfaceConstants(**content["constants"]))
        file = SurfaceFile(
            content,
            list(content["sources"]),
            list(content["targets"]),
            np.array(content["target_weights"], np.float64),
            None if most is None else np.array(most, np.float64),
            given,
            found,
            (given is None) == (ngrams is None),
        )
        # Whatever is of a wrong shape shows here.
        shares = np.full(len(file.sources), 1 / len(file.sources))
        found.objective(shares, file.target_weights)
        found.differences(shares, reference)
        return file
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}; it is written by a search with search.answer: surface"
        ) from None
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, IndexError):
        raise UserError(
            f"{path} is damaged, or is not what a search writes; take it from a copy of the run "
            "folder, or search again in another folder"
        ) from None


def _few(model: NgramLossModel, anchors: FloatArray, seed: int) -> dict[str, Any]:
    small, errors = fewer_ngrams(model, anchors, seed)
    counts = small.counts
    return {
        "error": errors.tolist(),
        "of": model.counts.weights.shape[1],
        "tokens": counts.tokens.tolist(),
        "counted": counts.counted,
        "vocab_size": counts.vocab_size,
        "singles": _table(csr_array(counts.singles)),
        "single_at": counts.single_at.tolist(),
        "levels": [
            {
                "followed": _table(level.followed),
                "contexts": _table(level.contexts),
                "followed_at": level.followed_at.tolist(),
                "context_at": level.context_at.tolist(),
            }
            for level in counts.levels
        ],
        "weights": counts.weights.tolist(),
    }


def _table(frequencies: csr_array) -> dict[str, Any]:
    """[S, D] by column: where each begins, its sources and its frequencies."""
    columns = frequencies.tocsc()
    return {
        "start": columns.indptr.tolist(),
        "source": columns.indices.tolist(),
        "frequency": columns.data.tolist(),
    }


def _model(given: dict[str, Any], few: dict[str, Any]) -> NgramLossModel:
    tokens = np.array(few["tokens"], np.float64)

    def table(content: dict[str, Any]) -> csr_array:
        parts = (content["frequency"], content["source"], content["start"])
        shape = (len(tokens), len(content["start"]) - 1)
        return csr_array(csc_array(tuple(np.array(part) for part in parts), shape=shape))

    levels = tuple(
        Level(
            table(level["followed"]),
            table(level["contexts"]),
            np.array(level["followed_at"], np.intp),
            np.array(level["context_at"], np.intp),
        )
        for level in few["levels"]
    )
    counts = NgramCounts(
        table(few["singles"]).toarray(),
        np.array(few["single_at"], np.intp),
        levels,
        np.array(few["weights"], np.float64),
        tokens,
        int(few["counted"]),
        int(few["vocab_size"]),
    )
    return ngram_model(counts, given)


def ngram_model(counts: NgramCounts, given: dict[str, Any]) -> NgramLossModel:
    """The n-gram loss model of counts and of the settings in the file."""
    read = given.get("read_tokens")
    return NgramLossModel(
        counts,
        given["budget_tokens"],
        given["repetitions"],
        tuple(given["smoothing"]),
        None if read is None else np.array(read, np.float64),
    )
