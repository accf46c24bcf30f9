"""Gives a sample run the loss surface of a search, from random n-grams and slopes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastmix_mega.files import write_json
from fastmix_mega.mixture.file import read_mixture
from fastmix_mega.mixture.ngram_loss import NgramLossModel, count_ngrams
from fastmix_mega.mixture.surface_file import SURFACE_FILE, Terms, write_surface
from fastmix_mega.mixture.surface_fit import Evidence, Recorded, Slopes
from fastmix_mega.mixture.surface_values import OWN, Values

VOCABULARY = 40
BUDGET = 300_000.0


def random_evidence(sources: int, targets: int, seed: int = 0) -> Recorded:
    """Each target is written like one of the sources, and two sources repeat at the budget. The
    first target has contexts of one token, the second of two, and so on in turn. Six runs are
    known, the last two of another model, one of which does not know the first target."""
    random = np.random.default_rng(seed)
    laws = random.dirichlet(np.full(VOCABULARY, 0.2), (sources, VOCABULARY))

    def text(law: np.ndarray, rows: int) -> np.ndarray:
        made = np.empty((rows, 24), np.int64)
        made[:, 0] = random.integers(VOCABULARY, size=rows)
        for place in range(1, 24):
            steps = law[made[:, place - 1]].cumsum(axis=1)
            drawn = (random.random((rows, 1)) > steps).sum(axis=1)
            made[:, place] = np.minimum(drawn, VOCABULARY - 1)
        return made

    whole = np.where(np.arange(sources) % 4 == 0, 40_000.0, 400_000.0)
    blends = [0.6 * laws[k % sources] + 0.4 * laws[(k + 3) % sources] for k in range(targets)]
    counts = count_ngrams(
        [text(law, 60) for law in laws], [text(law, 20) for law in blends], 2, VOCABULARY, whole
    )
    lengths = tuple(1 + number % 2 for number in range(targets))
    ngrams = NgramLossModel(counts, BUDGET, 15.0, (30.0, 10.0), context_lengths=lengths)
    even = np.full(sources, 1 / sources)
    evidence = [
        Evidence(4.5 + 0.2 * k, Slopes(random.normal(0, 0.4, sources), np.full(sources, 0.1), even))
        for k in range(targets)
    ]
    losses = 4.5 + 0.2 * np.arange(targets) + random.normal(0, 0.1, (6, targets))
    losses[5, 0] = np.nan
    groups = np.array([OWN, OWN, OWN, OWN, 1, 1])
    runs = Values(random.dirichlet(np.ones(sources), 6), losses, groups, groups == 1)
    return Recorded(even, ngrams, evidence, runs)


def add_surface(run_dir: Path) -> None:
    """Write surface.json, and say in mixture.json what a search would."""
    mixture = read_mixture(run_dir / "mixture.json")
    names = [source.name for source in mixture.sources]
    targets = [target["name"] for target in mixture.targets]
    recorded = random_evidence(len(names), len(targets))
    found = recorded.with_runs(None)
    weights = np.ones(len(targets))
    even = found.reference
    answer = np.array([source.weight for source in mixture.sources])
    alone = {"scores": found.best(weights), "ngrams": even}
    assert found.ngrams is not None
    write_surface(
        run_dir / SURFACE_FILE,
        Terms(names, targets, weights, found.ngrams.counts.tokens, BUDGET),
        recorded,
        np.stack([even, answer, *alone.values()]),
    )
    predicted = found.predict(np.stack([even, answer]))
    means, deviations = found.differences(answer, even)
    by_name = [
        {
            target: {"loss": float(loss), "deviation": float(deviation)}
            for target, loss, deviation in zip(targets, *each, strict=True)
        }
        for each in zip(predicted.mean, predicted.deviation, strict=True)
    ]
    search = mixture.search | {
        "answer_from": "surface",
        "probability_better": 0.87,
        "trained_on": dict(zip(names, even.tolist(), strict=True)),
        "evidence": {
            kind: dict(zip(names, each.tolist(), strict=True)) for kind, each in alone.items()
        },
        "disagreements": [f"n-grams want 13% of {names[0]}, the run's scores 0%"],
        "predictions": dict(zip(("uniform", "answer"), by_name, strict=True)),
        "predicted_gain": {
            target: {"gain": -a, "deviation": b}
            for target, a, b in zip(targets, means.tolist(), deviations.tolist(), strict=True)
        },
    }
    sources = [source.model_copy(update={"gain": None}) for source in mixture.sources]
    given = mixture.model_copy(update={"search": search, "sources": sources})
    write_json(run_dir / "mixture.json", given.model_dump(by_alias=True))


def retrained(run_dir: Path, gap: float, above: float = 0.0) -> None:
    """What `fastmix retrain` leaves: the answer ends `gap` below the even mixture, which ends
    `above` what was predicted."""
    mixture = read_mixture(run_dir / "mixture.json")
    targets = [target["name"] for target in mixture.targets]
    even = mixture.search["predictions"]["uniform"]

    def losses(more: float) -> dict[str, float]:
        return {target: even[target]["loss"] + above + more for target in targets}

    (run_dir / "retrain").mkdir()
    content = {
        "baseline": "uniform",
        "train_tokens": mixture.search["train_tokens"],
        "mixtures": {
            "uniform": "uniform",
            "found": {source.name: source.weight for source in mixture.sources},
        },
        "losses": {
            "uniform": [losses(-0.01), losses(0.01)],
            "found": [losses(-0.01 - gap), losses(0.02 - gap)],
        },
    }
    write_json(run_dir / "retrain" / "retrain.json", content)
