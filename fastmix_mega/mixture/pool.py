"""Several searches of the same question pooled, and two mixtures compared: pure functions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.errors import UserError
from fastmix_mega.mixture.file import MixtureFile, MixtureSource
from fastmix_mega.mixture.simplex import effective_sources, entropy
from fastmix_mega.mixture.target_weights import pool_targets

AGREEMENT = 0.6
"""Mean rank correlation between seeds below which they are said to disagree."""
SIGNIFICANT = 2.0
"""Standard errors that count as a difference."""
TINY = 1e-12


@dataclass(frozen=True)
class Pooled:
    weights: FloatArray
    """[S] normalised geometric mean over the seeds."""
    standard_errors: FloatArray
    """[S] of that mean, from the spread between the seeds."""
    agreement: float
    """Mean rank correlation of the weights over pairs of seeds: 1 is the same order."""
    contradictory: list[int]
    """Sources that one seed puts clearly above an even share and another clearly below."""

    @property
    def confident(self) -> bool:
        return self.agreement >= AGREEMENT and not self.contradictory


def pool(weights: FloatArray, errors: FloatArray) -> Pooled:
    """Pool [K, S] weights of K >= 2 seeds with their own standard errors.

    Weights are averaged as logarithms, as within a search. The spread between seeds holds the
    noise within each seed too, so that the seeds' own errors only decide what is contradictory.
    """
    seeds, sources = weights.shape
    logs = np.log(np.maximum(weights, TINY))
    mean = np.exp(logs.mean(axis=0))
    pooled = mean / mean.sum()
    # Each seed's share, at the common normalisation: the spread is that of the weights themselves.
    spread = weights.std(axis=0, ddof=1) / np.sqrt(seeds)
    far = (weights - 1 / sources) / np.maximum(errors, TINY)
    above, below = (far > SIGNIFICANT).any(axis=0), (far < -SIGNIFICANT).any(axis=0)
    return Pooled(
        pooled, spread, mean_rank_correlation(weights), np.flatnonzero(above & below).tolist()
    )


def mean_rank_correlation(weights: FloatArray) -> float:
    """Mean Spearman correlation over pairs of rows; 1 for a single source."""
    if weights.shape[1] < 2:
        return 1.0
    pairs = itertools.combinations(range(len(weights)), 2)
    return float(np.mean([rank_correlation(weights[a], weights[b]) for a, b in pairs]))


def rank_correlation(a: FloatArray, b: FloatArray) -> float:
    """Spearman's, with ties sharing their mean rank; 0 if one of them is constant."""
    x, y = _ranks(a), _ranks(b)
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 0 else 0.0


def _ranks(values: FloatArray) -> FloatArray:
    less = (values[None, :] < values[:, None]).sum(axis=1)
    same = (values[None, :] == values[:, None]).sum(axis=1)
    return less + (same - 1) / 2


def pool_files(files: Sequence[MixtureFile]) -> MixtureFile:
    """One mixture file from several seeds' ones.

    Raises:
        UserError: if they are fewer than two, or answers to different questions.
    """
    _require_same_question(files)
    first = files[0]
    names = [source.name for source in first.sources]
    given = [file.search.get("seed") for file in files]
    weights = np.array([[source.weight for source in file.sources] for file in files])
    errors = np.array([[source.stderr for source in file.sources] for file in files])
    result = pool(weights, errors)

    cost = sum(float(file.search.get("cost_in_proxy_runs", 1.0)) for file in files)
    search = first.search | {
        "seed": None,
        "seeds": given,
        "agreement": result.agreement,
        "confident": result.confident,
        "cost_in_proxy_runs": round(cost, 4),
        "entropy": entropy(result.weights),
        "effective_sources": effective_sources(result.weights),
        "warnings": pooled_warnings(files, result, names),
        "per_seed": [
            {"seed": seed, "weights": row.tolist()}
            for seed, row in zip(given, weights, strict=True)
        ],
    }
    sources = _pooled_sources(files, result)
    targets = pool_targets([file.targets for file in files])
    return first.model_copy(update={"sources": sources, "targets": targets, "search": search})


def _require_same_question(files: Sequence[MixtureFile]) -> None:
    if len(files) < 2:
        raise UserError("pooling needs the mixtures of at least two seeds")
    first = files[0]
    names = [source.name for source in first.sources]
    for other in files[1:]:
        if [source.name for source in other.sources] != names:
            raise UserError("these mixtures have different sources; only seeds can be pooled")
        if [t.get("name") for t in other.targets] != [t.get("name") for t in first.targets]:
            raise UserError("these mixtures have different targets; only seeds can be pooled")
        if other.tokenizer.get("sha256") != first.tokenizer.get("sha256"):
            raise UserError("these mixtures have different tokenizers; only seeds can be pooled")
    given = [file.search.get("seed") for file in files]
    if len(set(map(str, given))) < len(given):
        raise UserError(f"seeds must differ; these are {', '.join(map(str, given))}")


def _pooled_sources(files: Sequence[MixtureFile], result: Pooled) -> list[MixtureSource]:
    """The first seed's sources with the pooled shares."""
    sources = []
    for index, source in enumerate(files[0].sources):
        known = [file.sources[index].gain for file in files]
        gain = (
            None
            if None in known
            else float(np.mean([value for value in known if value is not None]))
        )
        share = float(result.weights[index])
        epochs = source.epochs_at_budget
        ratio = share / source.weight if source.weight > 0 else 0.0
        sources.append(
            source.model_copy(
                update={
                    "weight": share,
                    "stderr": float(result.standard_errors[index]),
                    "epochs_at_budget": None if epochs is None else epochs * ratio,
                    "gain": gain,
                }
            )
        )
    return sources


def pooled_warnings(
    files: Sequence[MixtureFile], result: Pooled, names: Sequence[str]
) -> list[str]:
    """Where the seeds disagree, and what they warned of: once each, with the seeds that did."""
    by_text: dict[str, list[str]] = {}
    for file in files:
        for text in dict.fromkeys(file.search.get("warnings") or []):
            by_text.setdefault(text, []).append(str(file.search.get("seed")))
    found = [f"{_who(seeds, len(files))}: {text}" for text, seeds in by_text.items()]
    if not result.confident:
        found.insert(
            0,
            f"The {len(files)} seeds disagree (rank correlation {result.agreement:.2f}): do not "
            "act on these weights. Search for more steps, or with a larger proxy or more target "
            "text.",
        )
    if result.contradictory:
        shown = ", ".join(names[index] for index in result.contradictory)
        found.insert(
            1, f"Clearly above an even share in one seed and below it in another: {shown}."
        )
    return found


def _who(seeds: Sequence[str], of: int) -> str:
    if len(seeds) == of:
        return "all seeds"
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    return f"seeds {', '.join(seeds[:-1])} and {seeds[-1]}"


@dataclass(frozen=True)
class Comparison:
    """Two mixtures over the union of their sources; a missing source has weight 0."""

    names: list[str]
    first: FloatArray
    second: FloatArray
    errors: FloatArray
    """[S] standard errors of the differences; 0 where none are known."""

    @property
    def moved(self) -> float:
        """Total variation distance: the share of the tokens that are elsewhere."""
        return float(np.abs(self.first - self.second).sum() / 2)

    @property
    def sigmas(self) -> list[float | None]:
        gaps = self.second - self.first
        return [
            float(gap / error) if error > 0 else None
            for gap, error in zip(gaps, self.errors, strict=True)
        ]


def compare(first: MixtureFile, second: MixtureFile) -> Comparison:
    names = list(dict.fromkeys(s.name for file in (first, second) for s in file.sources))
    found = []
    for file in (first, second):
        by_name = {source.name: source for source in file.sources}
        present = [by_name.get(name) for name in names]
        found.append(np.array([0.0 if each is None else each.weight for each in present]))
        found.append(np.array([0.0 if each is None else each.stderr for each in present]))
    return Comparison(names, found[0], found[2], np.hypot(found[1], found[3]))


def _in_sigmas(sigma: float) -> str:
    """Standard errors; beyond a hundred they are too small to be believed, and not counted."""
    return f"{sigma:+.1f}" if abs(sigma) < 100 else ("over +100" if sigma > 0 else "under -100")


def describe_comparison(first: MixtureFile, second: MixtureFile) -> list[str]:
    """The table that `fastmix compare` prints."""
    result = compare(first, second)
    wide = max(6, *map(len, result.names))
    lines = [f"{'source':<{wide}}        A        B     B - A  standard errors"]
    order = np.argsort(-np.abs(result.second - result.first), kind="stable")
    for at in order:
        a, b, sigma = result.first[at], result.second[at], result.sigmas[at]
        shown = "?" if sigma is None else _in_sigmas(sigma)
        lines.append(f"{result.names[at]:<{wide}}  {a:7.2%}  {b:7.2%}  {b - a:+8.2%}  {shown:>15}")
    lines.append(f"{result.moved:.1%} of the tokens are elsewhere")
    lines.append(f"rank correlation {rank_correlation(result.first, result.second):.2f}")
    known = [abs(sigma) for sigma in result.sigmas if sigma is not None]
    if known and max(known) < SIGNIFICANT:
        lines.append("no source differs by two standard errors: these may be the same mixture")
    hashes = [file.tokenizer.get("sha256") for file in (first, second)]
    if all(hashes) and hashes[0] != hashes[1]:
        lines.append("warning: their tokenizers differ, and shares of tokens with them")
    return lines
