"""Rules from recorded evidence to a mixture: no training.

The evidence is a trunk's: scores of every window and target at uniform, from a run that never
moved its mixture, and the bigram law. A rule's answer is therefore that of a search with a broad
trunk: what it samples is uniform, whatever its answer is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from research import surface_lab
from research.judge import product
from research.judge.product import Family, FloatArray
from research.judge.records import Record, Records

LATE = 0.5
"""Scores count from this share of the run on."""
FLOOR = 0.02


@dataclass(frozen=True)
class Evidence:
    """What one trunk says of one target."""

    steps: FloatArray
    """[K] training steps at the windows' ends."""
    rates: FloatArray
    """[K] learning rate summed over the window's steps."""
    scores: FloatArray
    """[K, S] of single windows, NaN where a source was not seen."""
    counts: FloatArray
    """[K, S] observations."""
    target_losses: FloatArray
    """[K] on the sequences of the target that were seen then."""
    loss: float
    """The trunk's own, on the judge's text."""

    def late(self, share: float = LATE) -> Evidence:
        kept = self.steps > share * self.steps[-1]
        return Evidence(
            steps=self.steps[kept],
            rates=self.rates[kept],
            scores=self.scores[kept],
            counts=self.counts[kept],
            target_losses=self.target_losses[kept],
            loss=self.loss,
        )

    def slopes(self, even: bool = False) -> surface_lab.Slopes:
        """[S] nats per unit of share that the windows promise to first order: the sum of learning
        rates times each source's mean score; the error from the scatter.

        Args:
            even: every observation counts the same in the mean, rather than by the learning rate of
                its window. Then what a trained model says counts more, though its steps were small.
        """
        weight = np.where(np.isfinite(self.scores), self.counts, 0.0)
        if not even:
            weight = weight * self.rates[:, None]
        scores = np.nan_to_num(self.scores)
        total = weight.sum(axis=0)
        mean = (weight * scores).sum(axis=0) / total
        squares = (weight**2 * (scores - mean) ** 2).sum(axis=0)
        length = self.rates.sum()
        return surface_lab.Slopes(length * mean, length * np.sqrt(squares) / total)

    def optimism(self) -> float:
        """By how much the windows promise more than was seen: the fall of the target's loss to
        first order, over the fall itself. Steps are no infinitesimal ones."""
        promised = self.slopes().mean.mean()
        quarter = max(1, len(self.target_losses) // 4)
        fall = self.target_losses[:quarter].mean() - self.target_losses[-quarter:].mean()
        seen = fall * len(self.target_losses) / (len(self.target_losses) - quarter)
        return float(max(promised, 1e-9) / max(seen, 0.02))

    def calibrated(self, even: bool = False) -> surface_lab.Slopes:
        """Slopes in nats that the run itself bears out."""
        slopes, optimism = self.slopes(even), self.optimism()
        return surface_lab.Slopes(slopes.mean / optimism, slopes.standard_error / optimism)


def evidence(family: Family, trunk: Record, target: str) -> Evidence:
    """Of a record whose search had `search.decay: 0` and `search.step: 0`."""
    place = family.targets.index(target)
    rows = [row for row in trunk.history if "target_scores" in row]
    counts = np.array([row["counts"] for row in rows], float)
    scores = np.array([row["target_scores"][place] for row in rows], float)
    return Evidence(
        steps=np.array([row["step"] for row in rows], float),
        rates=np.array([product.rate_of_window(family, row["step"]) for row in rows]),
        scores=np.where(counts > 0, scores, np.nan),
        counts=counts,
        target_losses=np.array([row["target_loss"][target] for row in rows]),
        loss=trunk.losses[target],
    )


def law_of(family: Family, target: str) -> surface_lab.Law:
    """The bigram law on the target's search text, at the family's budget."""

    def law(mixture: FloatArray) -> tuple[float, FloatArray]:
        return family.bigram_law(mixture, target)

    return law


CONCENTRATIONS = (30.0, 10.0, 5.0, 3.0)
"""Of n-gram laws by context length, from the loss of uniform samples on targets; see LOG.md."""


def longer_law_of(family: Family, target: str, longest: int) -> surface_lab.Law:
    """The n-gram law with contexts of up to so many tokens."""

    def law(mixture: FloatArray) -> tuple[float, FloatArray]:
        return family.ngram_law(mixture, target, CONCENTRATIONS[:longest])

    return law


def least_loss(law: surface_lab.Law, count: int) -> FloatArray:
    """[S] where a law's loss is least, with a floor of 2% of uniform."""
    mean = np.concatenate(([0.0, 1.0], np.zeros(count)))
    nothing = np.zeros((count + 2, count + 2))
    return surface_lab.Surface(law, surface_lab.Constants(), mean, nothing).best(FLOOR)


def normalised(found: Evidence) -> FloatArray:
    """[S] the sum over windows of scores less their mean, each window's largest one 1 (about):
    what the product's rule adds to log-weights per unit of step, without its pull back."""
    scale, total = 0.0, np.zeros(found.scores.shape[1])
    kept = np.zeros_like(total)
    weight = np.zeros_like(total)
    for number, (row, count) in enumerate(zip(found.scores, found.counts, strict=True), 1):
        kept = 0.7 * kept + np.nan_to_num(row) * count
        weight = 0.7 * weight + count
        scores = np.where(weight > 0, kept / np.maximum(weight, 1e-9), 0.0)
        scores = scores - scores.mean()
        scale = 0.9 * scale + 0.1 * np.abs(scores).max()
        total += scores * (1 - 0.9**number) / scale
    return total


Rule = Callable[[Family, Evidence, str], FloatArray]


def softmax(logits: FloatArray) -> FloatArray:
    found: FloatArray = np.exp(logits - logits.max())
    return found / found.sum()


def _scores_alone(step: float, late: float = LATE) -> Rule:
    """From uniform: log-weights are the step times the sum of normalised late scores."""

    def rule(family: Family, found: Evidence, target: str) -> FloatArray:
        del family, target
        return softmax(step * normalised(found.late(late)))

    return rule


def _pairs_and_scores(step: float, confidence: float = 1.0) -> Rule:
    """The answer starts at the bigram mixture, the trunk does not."""

    def rule(family: Family, found: Evidence, target: str) -> FloatArray:
        home = np.log(family.bigram_mixture(target))
        return softmax(confidence * home + step * normalised(found.late()))

    return rule


def _veto(least: float) -> Rule:
    """The bigram mixture without the sources of which late scores say, with that many standard
    errors, that they are worth less than the average of all."""

    def rule(family: Family, found: Evidence, target: str) -> FloatArray:
        slopes = found.late().slopes()
        distance = (slopes.mean - slopes.mean.mean()) / slopes.standard_error
        mixture = family.bigram_mixture(target)
        return _normal(np.where(distance < -least, 0.1 * mixture, mixture))

    return rule


def _posterior(longest: int, constants: surface_lab.Constants) -> Rule:
    """The least of the surface; no contexts of more than one token is the product's pair law."""

    def rule(family: Family, found: Evidence, target: str) -> FloatArray:
        return surface(family, found, target, longest, constants).best(FLOOR)

    return rule


def surface(
    family: Family,
    found: Evidence,
    target: str,
    longest: int,
    constants: surface_lab.Constants,
) -> surface_lab.Surface:
    """The posterior from one trunk and a law of contexts of up to so many tokens."""
    count = len(family.sources)
    law = law_of(family, target) if longest == 1 else longer_law_of(family, target, longest)
    values = surface_lab.Values(np.full((1, count), 1 / count), np.array([found.loss]))
    return surface_lab.fit(law, found.late().calibrated(), values, constants)


def _normal(weights: FloatArray) -> FloatArray:
    return weights / weights.sum()


MEASURED = surface_lab.Constants(slope_bias=1.0, scale=0.3, bend=0.02)
"""What leave-one-family-out chose on three families alike (LOG.md): a slope's error is as large as
the slopes are."""
RULES: dict[str, Rule] = {
    "scores02": _scores_alone(0.2),
    "scores05": _scores_alone(0.05),
    "scores02_last": _scores_alone(0.4, 0.75),
    "pairs02": _pairs_and_scores(0.2),
    "pairs05": _pairs_and_scores(0.05),
    "half_pairs02": _pairs_and_scores(0.2, 0.5),
    "veto2": _veto(2.0),
    "measured2": _posterior(2, MEASURED),
    **{
        f"posterior{longest}": _posterior(longest, surface_lab.Constants()) for longest in (1, 2, 3)
    },
}


def answer(
    family: Family, records: Records, rule: str, target: str, seed: int, scores: str = "body"
) -> FloatArray | None:
    """[S] what a rule makes of the trunk with that seed; None while it is missing."""
    trunk = records.get("search", family.name, f"trunk_{scores}", seed)
    if trunk is None:
        return None
    return RULES[rule](family, evidence(family, trunk, target), target)
