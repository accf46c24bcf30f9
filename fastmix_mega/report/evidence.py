"""Where a mixture comes from: what each kind of evidence wants, and what is predicted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.mixture.surface import SIGMAS
from fastmix_mega.mixture.surface_file import SurfaceFile
from fastmix_mega.report.read import Run
from fastmix_mega.report.retrained import RetrainedView, contradicted
from fastmix_mega.report.sources import Mixture, SourceView
from fastmix_mega.report.words import exact_percent, minus, percent, shorten

KINDS = {"ngrams": "n-grams alone", "scores": "scores alone", "runs": "finished runs alone"}
"""Of evidence, as they stand in mixture.json, and in words."""
MIXTURES = {"uniform": "even split", "baseline": "", "answer": "this mixture", **KINDS}
"""In the order of the page; the baseline has the user's name."""
SHOWN_DISAGREEMENTS = 8
"""In words; the table marks all."""
FAR_APART = 2.0
"""A source's shares by two kinds of evidence disagree where one is above the even share, and the
other below it by this factor."""


@dataclass(frozen=True)
class Cell:
    """A number of a table, and whether it needs attention."""

    text: str
    alert: bool = False
    detail: str = ""


@dataclass(frozen=True)
class EvidenceView:
    """What the page's section shows."""

    kinds: list[str]
    """The columns after the answer's."""
    rows: list[tuple[SourceView, list[Cell], str]]
    """Every source with its share by each kind of evidence, and what its share is worth."""
    has_worth: bool
    reasons: list[str]
    """Why the headline's sources have the shares that they have."""
    disagreements: list[str]
    targets: list[str]
    predictions: list[tuple[str, list[Cell]]]
    """Every mixture in words, with its predicted loss on each target."""
    gains: list[str]
    """In words, by how much each target's loss is expected below the even mixture's."""
    better: str
    """How sure the answer is to beat the mixture that the run trained on; empty if not known."""
    even_start: bool
    """Whether that mixture was the even one."""


def evidence_view(
    run: Run,
    mixture: Mixture,
    retrained: RetrainedView | None = None,
    baseline: tuple[str, FloatArray] | None = None,
) -> EvidenceView | None:
    """None where the answer does not come from a loss surface.

    Args:
        run: of the page.
        mixture: its answer.
        retrained: what fresh models showed of it.
        baseline: a mixture of the user's, with its name.
    """
    search = run.search
    shares = {kind: search.evidence[kind] for kind in KINDS if kind in search.evidence}
    if search.answer_from != "surface" or not shares:
        return None
    wrong = contradicted(retrained)
    wrong_levels = [] if retrained is None else retrained.wrong_levels
    worth = {} if wrong else _worth(run.surface, mixture)
    rows = [
        (source, _shares(source.name, shares, mixture.uniform), worth.get(source.name, ("",))[0])
        for source in mixture.ranked
    ]
    targets = list(next(iter(search.predictions.values()), {}))
    probability = search.probability_better
    return EvidenceView(
        kinds=[KINDS[kind] for kind in shares],
        rows=rows,
        has_worth=bool(worth),
        reasons=[_reason(source, shares, worth, mixture.uniform) for source in _explained(mixture)],
        disagreements=_told(search.disagreements),
        targets=targets,
        predictions=_predictions(run, mixture, (wrong, wrong_levels), baseline),
        gains=[
            f"{target} {minus(found['gain']).lstrip('+')} ± {SIGMAS * found['deviation']:.3f}"
            for target, found in search.predicted_gain.items()
            if {"gain", "deviation"} <= found.keys() and target not in wrong
        ],
        better="" if probability is None else f"{probability:.0%}",
        even_start=all(abs(share - mixture.uniform) < 1e-6 for share in search.trained_on.values()),
    )


def _told(disagreements: list[str]) -> list[str]:
    """The largest ones, and how many more there are."""
    told, more = disagreements[:SHOWN_DISAGREEMENTS], len(disagreements) - SHOWN_DISAGREEMENTS
    return [*told, f"and {more} more sources, marked ≠ below"] if more > 0 else told


def _shares(name: str, shares: dict[str, dict[str, float]], even: float) -> list[Cell]:
    """A source's share by each kind; marked where the kinds disagree."""
    given = [each.get(name, 0.0) for each in shares.values()]
    apart = max(given) > even and min(given) < even / FAR_APART
    return [Cell(exact_percent(share), apart) for share in given]


def _worth(surface: SurfaceFile | None, mixture: Mixture) -> dict[str, tuple[str, float, float]]:
    """By source: in words, the mean and half the 90% interval of the targets' mean loss if the
    source had an even share instead, above the answer's."""
    if surface is None:
        return {}
    answer = np.array([source.weight for source in mixture.sources])
    weights = surface.target_weights / surface.target_weights.sum()
    found = {}
    for source in mixture.sources:
        others = 1 - source.weight
        if others <= 0:
            continue
        changed = answer * (1 - mixture.uniform) / others
        changed[source.index] = mixture.uniform
        means, deviations = surface.surface.differences(changed, answer)
        mean, half = float(weights @ means), SIGMAS * float(weights @ deviations)
        found[source.name] = (f"{minus(mean)} ± {half:.3f}", mean, half)
    return found


def _explained(mixture: Mixture) -> list[SourceView]:
    """The sources of the headline."""
    return [
        *mixture.leaders,
        *(each for each in mixture.ranked[-1:] if each not in mixture.leaders),
    ]


def _reason(
    source: SourceView,
    shares: dict[str, dict[str, float]],
    worth: dict[str, tuple[str, float, float]],
    even: float,
) -> str:
    """Why a source has its share."""
    wanted = [
        f"{KINDS[kind]} {percent(each.get(source.name, 0.0))}" for kind, each in shares.items()
    ]
    text = f"{shorten(source.name, 36)}, {percent(source.weight)}: {', '.join(wanted)}."
    if source.name not in worth:
        return text
    shown, mean, half = worth[source.name]
    text += f" At an even share instead, {percent(even)}, the targets’ mean loss would change by "
    text += f"{shown} nats"
    if abs(mean) < half:
        return f"{text}; that interval holds 0."
    return f"{text}."


def _predictions(
    run: Run,
    mixture: Mixture,
    wrong: tuple[list[str], list[str]],
    baseline: tuple[str, FloatArray] | None,
) -> list[tuple[str, list[Cell]]]:
    """By mixture, a cell a target.

    Args:
        run: of the page.
        mixture: its answer.
        wrong: targets whose differences, and whose losses themselves, retraining contradicts.
        baseline: another mixture to show.
    """
    search, found = run.search, []
    targets = list(next(iter(search.predictions.values()), {}))
    places = {source.name: source.index for source in mixture.sources}
    weights: dict[str, FloatArray] = {"answer": np.array([each.weight for each in mixture.sources])}
    for kind, shares in search.evidence.items():
        if set(shares) == set(places):
            weights[kind] = np.array([shares[name] for name in places])
    recorded = dict(search.predictions)
    titles = dict(MIXTURES)
    if baseline is not None and run.surface is not None:
        titles["baseline"], weights["baseline"] = baseline
        predicted = run.surface.surface.predict(baseline[1][None])
        recorded["baseline"] = {
            target: {"loss": float(mean), "deviation": float(deviation)}
            for target, mean, deviation in zip(
                run.surface.targets, predicted.mean[0], predicted.deviation[0], strict=True
            )
        }
    for name, title in titles.items():
        if name not in recorded:
            continue
        gaps = _beside_even(run.surface, weights.get(name))
        found.append(
            (
                title,
                [
                    Cell("retraining says otherwise", True)
                    if target in wrong[0]
                    else Cell("retraining says otherwise", True, gaps.get(target, ""))
                    if target in wrong[1]
                    else Cell(_loss(recorded[name].get(target)), detail=gaps.get(target, ""))
                    for target in targets
                ],
            )
        )
    return found


def _beside_even(surface: SurfaceFile | None, weights: FloatArray | None) -> dict[str, str]:
    """By target, the predicted difference to the even split, which is free of the level's error."""
    if surface is None or weights is None:
        return {}
    means, deviations = surface.surface.differences(
        weights, np.full(len(weights), 1 / len(weights))
    )
    return {
        target: f"{minus(mean)} ± {SIGMAS * deviation:.3f}"
        for target, mean, deviation in zip(surface.targets, means, deviations, strict=True)
    }


def _loss(found: dict[str, float] | None) -> str:
    if found is None or not {"loss", "deviation"} <= found.keys():
        return "–"
    half = SIGMAS * found["deviation"]
    return f"{found['loss']:.3f} ± {half:.3f}"
