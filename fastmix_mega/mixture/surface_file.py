"""surface.json: a search's loss surface, by name, complete enough to be used without its data.

The n-grams themselves stay with the data. In their place stands a model of a few of them
(`fewer_ngrams`), which foretells the same losses within an error that is written beside it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csc_array, csr_array

from fastmix_mega.arrays import FloatArray
from fastmix_mega.errors import MISSHAPEN, UserError
from fastmix_mega.files import write_atomic
from fastmix_mega.mixture.bigram import most_shares
from fastmix_mega.mixture.fewer_ngrams import fewer_ngrams
from fastmix_mega.mixture.ngram_loss import Level, NgramCounts, NgramLossModel
from fastmix_mega.mixture.surface import LossSurface, SurfaceConstants, TargetPosterior
from fastmix_mega.mixture.surface_fit import Evidence, Recorded, Slopes
from fastmix_mega.mixture.surface_values import KnownRuns, Values
from fastmix_mega.reading import read_json

SURFACE_FILE = "surface.json"
"""In the run folder."""
SCHEMA = "fastmix-surface/5"
OLDER = "fastmix-surface/4"
"""Without branches among its runs; otherwise the same."""
LARGEST = 256 << 20
"""Bytes of the file: n-grams and finished runs take their place."""


class AnotherVersion(UserError):
    """A surface.json that this version does not read."""


@dataclass(frozen=True)
class Terms:
    """What a surface is of."""

    sources: Sequence[str]
    targets: Sequence[str]
    target_weights: FloatArray
    """[K] of the objective."""
    tokens: FloatArray
    """[S] of the sources."""
    budget: float
    """Tokens of the run that the surface is for."""


@dataclass(frozen=True)
class SurfaceFile:
    """What the file holds."""

    content: dict[str, Any]
    """As it was read."""
    sources: list[str]
    targets: list[str]
    target_weights: FloatArray
    """[K] of the objective."""
    most_share: FloatArray
    """[S] above which a source is read beyond reason."""
    ngrams: dict[str, Any] | None
    """Settings of the n-gram loss model; None where it says nothing."""
    recorded: Recorded
    """The evidence, with the few n-grams."""
    surface: LossSurface
    """The posterior, with the few n-grams."""


def write_surface(
    path: Path, terms: Terms, recorded: Recorded, anchors: FloatArray, seed: int = 0
) -> None:
    """Write a surface.

    Args:
        path: of surface.json.
        terms: what it is of.
        recorded: the evidence.
        anchors: [N, S] mixtures at which the few n-grams must be right.
        seed: of their choice.
    """
    ngrams, found = recorded.ngrams, recorded.with_runs(None)
    read = None if ngrams is None else ngrams.read
    content = {
        "schema": SCHEMA,
        "sources": list(terms.sources),
        "targets": list(terms.targets),
        "target_weights": terms.target_weights.tolist(),
        "most_share": most_shares(terms.tokens, terms.budget, read).tolist(),
        "reference": recorded.reference.tolist(),
        "constants": vars(recorded.constants),
        "ngrams": None
        if ngrams is None
        else {
            "longest_context": ngrams.longest,
            "context_lengths": list(ngrams.lengths),
            "budget_tokens": ngrams.budget,
            "repetitions": ngrams.repetitions,
            "smoothing": list(ngrams.smoothing),
            "read_tokens": None if read is None else read.tolist(),
        },
        "few_ngrams": None if ngrams is None else _few(ngrams, anchors, seed),
        "evidence": [
            {
                "level": each.level,
                "slopes": None if each.slopes is None else _lists(vars(each.slopes)),
            }
            for each in recorded.evidence
        ],
        "runs": None if recorded.values is None else _written_runs(recorded.values),
        "posterior": [
            {
                "mean": each.mean.tolist(),
                "covariance": each.covariance.tolist(),
                "known": None if each.known is None else _lists(vars(each.known)),
            }
            for each in found.targets
        ],
    }
    write_atomic(path, json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")


def _lists(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: np.asarray(array).tolist() for name, array in arrays.items()}


def _written_runs(values: Values) -> dict[str, Any]:
    return {
        "mixtures": values.mixtures.tolist(),
        "losses": [
            [loss if isfinite(loss) else None for loss in row] for row in values.losses.tolist()
        ],
        "groups": values.groups.tolist(),
        "short": values.short.tolist(),
    }


def read_surface_file(path: Path) -> SurfaceFile:
    """Read and check a surface.

    Raises:
        UserError: if there is none, or it is not what a search writes.
    """
    try:
        content: dict[str, Any] = read_json(path, LARGEST)
        if content["schema"] not in (SCHEMA, OLDER):
            raise AnotherVersion(f"{path} is of another version; search again in another folder")
        given, few = content["ngrams"], content["few_ngrams"]
        sources, targets = len(content["sources"]), len(content["targets"])
        constants = {name: _finite(each, ()) for name, each in content["constants"].items()}
        recorded = Recorded(
            _finite(content["reference"], (sources,)),
            None if given is None else _model(given, few),
            [_evidence(each, sources) for each in content["evidence"]],
            None if content["runs"] is None else _runs(content["runs"], sources, targets),
            SurfaceConstants(**{name: float(each) for name, each in constants.items()}),
        )
        posterior = [_posterior(each, sources) for each in content["posterior"]]
        if not len(posterior) == len(recorded.evidence) == targets:
            raise ValueError
        found = LossSurface(recorded.reference, recorded.ngrams, posterior, recorded.constants)
        file = SurfaceFile(
            content,
            list(content["sources"]),
            list(content["targets"]),
            np.array(content["target_weights"], np.float64),
            np.array(content["most_share"], np.float64),
            given,
            recorded,
            found,
        )
        # Whatever is of a wrong shape shows here.
        shares = np.full(len(file.sources), 1 / len(file.sources))
        found.objective(shares, file.target_weights)
        found.differences(shares, recorded.reference)
        return file
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


def _evidence(given: dict[str, Any], sources: int) -> Evidence:
    slopes = given["slopes"]
    if slopes is not None:
        slopes = Slopes(**{name: _finite(each, (sources,)) for name, each in slopes.items()})
    return Evidence(float(_finite(given["level"], ())), slopes)


def _runs(given: dict[str, Any], sources: int, targets: int) -> Values:
    losses = np.array(given["losses"], np.float64)  # None becomes NaN.
    groups = np.array(given["groups"], np.int64)
    count = len(groups)
    short = np.array(given.get("short", [False] * count))
    if losses.shape != (count, targets) or groups.shape != (count,) or (groups < 0).any():
        raise ValueError
    if short.shape != (count,) or short.dtype != np.bool_:
        raise ValueError
    return Values(_finite(given["mixtures"], (count, sources)), losses, groups, short)


def _finite(given: Any, shape: tuple[int, ...]) -> FloatArray:
    """Raises: ValueError, TypeError: unless it is finite numbers of this shape."""
    found = np.array(given, np.float64)
    if found.shape != shape or not np.isfinite(found).all():
        raise ValueError
    return found


def _posterior(given: dict[str, Any], sources: int) -> TargetPosterior:
    """Raises: ValueError, TypeError: unless it holds finite numbers of the right shape."""
    length = 2 + sources
    mean = _finite(given["mean"], (length,))
    covariance = _finite(given["covariance"], (length, length))
    known = None if given["known"] is None else _known(given["known"], sources)
    return TargetPosterior(mean, covariance, known)


def _known(given: dict[str, Any], sources: int) -> KnownRuns:
    count = len(given["losses"])
    return KnownRuns(
        mixtures=_finite(given["mixtures"], (count, sources)),
        rows=_finite(given["rows"], (count, 2 + sources)),
        losses=_finite(given["losses"], (count,)),
        precision=_finite(given["precision"], (count, count)),
        noise=float(_finite(given["noise"], ())),
    )


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
        columns = csc_array(tuple(np.array(part) for part in parts), shape=shape)
        # scipy's compiled code writes wherever these numbers point.
        columns.check_format(full_check=True)
        return csr_array(columns)

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
    """The n-gram loss model of counts and of the settings in the file.

    Raises:
        ValueError, TypeError: unless every target has contexts of a length that was counted.
    """
    read = given.get("read_tokens")
    lengths = tuple(given["context_lengths"])
    known = set(range(1, len(counts.levels) + 1))
    if len(lengths) != len(counts.weights) or not known.issuperset(lengths):
        raise ValueError
    return NgramLossModel(
        counts,
        given["budget_tokens"],
        given["repetitions"],
        tuple(given["smoothing"]),
        None if read is None else np.array(read, np.float64),
        lengths,
    )
