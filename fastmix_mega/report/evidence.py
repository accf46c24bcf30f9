"""Where a mixture comes from: what each kind of evidence wants, and what is predicted."""

from __future__ import annotations

from dataclasses import dataclass

from fastmix_mega.report.read import Run
from fastmix_mega.report.sources import Mixture, SourceView
from fastmix_mega.report.words import exact_percent

KINDS = {"ngrams": "n-grams alone", "scores": "scores alone"}
"""Of evidence, as they stand in mixture.json, and in words."""
MIXTURES = {"uniform": "even split", "answer": "this mixture", **KINDS}
SIGMAS = 1.645
"""Half of a 90% interval, in standard deviations."""


@dataclass(frozen=True)
class EvidenceView:
    """What the page's section shows."""

    kinds: list[str]
    """The columns after the answer's."""
    rows: list[tuple[SourceView, list[str]]]
    """Every source with its share by each kind of evidence."""
    disagreements: list[str]
    targets: list[str]
    predictions: list[tuple[str, list[str]]]
    """Every mixture in words, with its predicted loss on each target."""
    gains: list[str]
    """In words, by how much each target's loss is expected below the even mixture's."""
    better: str
    """How sure the answer is to beat the mixture that the run trained on; empty if not known."""


def evidence_view(run: Run, mixture: Mixture) -> EvidenceView | None:
    """None where the answer does not come from a loss surface."""
    search = run.search
    shares = {kind: search.evidence[kind] for kind in KINDS if kind in search.evidence}
    if search.answer_from != "surface" or not shares:
        return None
    rows = [
        (source, [exact_percent(each.get(source.name, 0.0)) for each in shares.values()])
        for source in mixture.ranked
    ]
    targets = list(next(iter(search.predictions.values()), {}))
    predictions = [
        (title, [_loss(search.predictions[name].get(target)) for target in targets])
        for name, title in MIXTURES.items()
        if name in search.predictions
    ]
    probability = search.probability_better
    better = "" if probability is None else f"{probability:.0%}"
    return EvidenceView(
        kinds=[KINDS[kind] for kind in shares],
        rows=rows,
        disagreements=search.disagreements,
        targets=targets,
        predictions=predictions,
        gains=[
            f"{target} {found['gain']:.3f} ± {SIGMAS * found['deviation']:.3f}"
            for target, found in search.predicted_gain.items()
            if {"gain", "deviation"} <= found.keys()
        ],
        better=better,
    )


def _loss(found: dict[str, float] | None) -> str:
    if found is None or not {"loss", "deviation"} <= found.keys():
        return "–"
    half = SIGMAS * found["deviation"]
    return f"{found['loss']:.3f} ± {half:.3f}"
