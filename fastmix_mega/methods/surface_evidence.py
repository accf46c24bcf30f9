"""The part of `method: fastmix` that answers from a loss surface.

The run trains on one broad mixture. n-gram statistics of the data and the run's late scores are
two kinds of evidence about the loss of every other mixture; the answer is the best one for both.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.schema import Config
from fastmix_mega.data.rows import any_masked
from fastmix_mega.data.run_inputs import Inputs
from fastmix_mega.files import write_json
from fastmix_mega.methods.base import target_weights
from fastmix_mega.methods.gradients import window_rate
from fastmix_mega.methods.run_evidence import read_runs
from fastmix_mega.mixture.bigram import within_most_epochs
from fastmix_mega.mixture.constraints.apply import ConstraintSet, Sources
from fastmix_mega.mixture.file import MixtureFile
from fastmix_mega.mixture.ngram_loss import NgramLossModel, read_counts
from fastmix_mega.mixture.outer_schedule import OuterSchedule
from fastmix_mega.mixture.simplex import floored
from fastmix_mega.mixture.surface import SIGMAS, LossSurface
from fastmix_mega.mixture.surface_controller import SurfaceController, SurfaceSettings
from fastmix_mega.mixture.surface_file import SURFACE_FILE, Terms, write_surface
from fastmix_mega.mixture.surface_fit import Evidence, Recorded, fit

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastmix_mega.training.observers import TargetGradients

LONGEST_CONTEXT = 2
"""Tokens before each token that the n-gram loss model knows."""
PREDICTIONS_FILE = "predictions.json"
"""In the run folder: what the search says of some mixtures, before any of them is retrained."""
PREDICTIONS_SCHEMA = "fastmix-predictions/1"


def ngram_model(config: Config, inputs: Inputs, budget: float) -> NgramLossModel:
    """Reads a sample of every source and target; for a large corpus that takes minutes.

    Raises:
        UserError: if one holds no sequence at all.
    """
    started = time.perf_counter()
    print(f"n-gram statistics of {len(inputs.sources)} sources ...", file=sys.stderr, flush=True)
    counts = read_counts(
        inputs.sources, inputs.targets, inputs.tokenizer.vocab_size, LONGEST_CONTEXT
    )
    model = NgramLossModel(counts, budget, config.search.repetitions, read=read_before(config))
    count = len(inputs.sources)
    found = model.fitted(np.full(count, 1 / count), target_weights(config))
    seconds = time.perf_counter() - started
    print(f"n-gram statistics: {seconds:.1f} s", file=sys.stderr, flush=True)
    return found


def read_before(config: Config) -> FloatArray | None:
    """[S] tokens of the sources that the large run has read before; None for none."""
    limits = config.search.constraints
    if limits is None or not any(limits.read_tokens.values()):
        return None
    return np.array([limits.read_tokens.get(name, 0) for name in config.source_names], np.float64)


def ngram_answer(config: Config, inputs: Inputs) -> FloatArray:
    """[S] what n-gram statistics alone suggest, without any training.

    Raises:
        UserError: if a file holds no sequence, or no mixture keeps to the limits.
    """
    budget = _answer_budget(config)
    model, count = ngram_model(config, inputs, budget), len(inputs.sources)
    even = np.full(count, 1 / count)
    found = fit(even, model, [Evidence(0.0)] * len(inputs.targets))
    return found.best(target_weights(config), _allowed(config, inputs))


def surface_answer(
    config: Config,
    inputs: Inputs,
    found: LossSurface,
    parameters: FloatArray | None = None,
    start: FloatArray | None = None,
) -> FloatArray:
    """[S] the best mixture of a surface within the search's limits, as a search would answer.

    Args:
        config: of the search.
        inputs: its data.
        found: the surface.
        parameters: [K, P] other than the posterior's means.
        start: [S] a mixture near the answer, if one is known.

    Raises:
        UserError: if no mixture keeps to the limits.
    """
    allowed = _allowed(config, inputs)
    return allowed(floored(found.best(target_weights(config), allowed, parameters, start)))


def _answer_budget(config: Config) -> float:
    limits = config.search.constraints
    given = None if limits is None else limits.budget_tokens
    return float(given or config.train.tokens)


def _allowed(config: Config, inputs: Inputs) -> Callable[[FloatArray], FloatArray]:
    """To the nearest mixture within the limits that repeats no source beyond reason."""
    tokens = [source.num_tokens for source in inputs.sources]
    limits, budget = config.search.constraints, _answer_budget(config)
    project = None
    if limits is not None:
        sources = Sources(config.source_names, tokens)
        project = ConstraintSet(limits, sources, "search.constraints").project

    def allowed(mixture: FloatArray) -> FloatArray:
        sizes = np.array(tokens, np.float64)
        mixture = within_most_epochs(mixture, sizes, budget, read_before(config))
        return mixture if project is None else project(mixture)

    return allowed


def surface_controller(
    config: Config,
    inputs: Inputs,
    reference: FloatArray,
    budget: float,
    schedule: OuterSchedule,
    observer: TargetGradients,
    project: Callable[[FloatArray], FloatArray] | None,
) -> SurfaceController:
    """Of a search, on rank 0.

    Args:
        config: of the search.
        inputs: opened.
        reference: [S] the mixture that the run trains on.
        budget: tokens of the run that the answer is for.
        schedule: of the windows.
        observer: knows the targets' losses.
        project: to the nearest mixture within the limits.
    """
    tokens = np.array([source.num_tokens for source in inputs.sources], np.float64)

    read = read_before(config)

    def most_epochs(mixture: FloatArray) -> FloatArray:
        return within_most_epochs(mixture, tokens, budget, read)

    text = not any_masked([*inputs.sources, *inputs.targets])
    runs = None
    if config.search.evidence:
        runs = read_runs(config.search.evidence, config, inputs.tokenizer.sha256)
    settings = SurfaceSettings(
        target_weights(config),
        ngram_model(config, inputs, budget) if text else None,
        lambda number: window_rate(config, schedule.warmup + number * schedule.every),
        windows=schedule.outer_steps,
        levels=lambda: observer.target_losses,
        project=project,
        most_epochs=most_epochs,
        decay=config.search.decay,
        values=None if runs is None else runs.values,
        seed=config.seed,
        train_tokens=float(config.train.tokens),
    )
    return SurfaceController(reference, settings)


def evidence_record(
    config: Config, controller: SurfaceController, answer: FloatArray
) -> dict[str, Any]:
    """What mixture.json says of the evidence: each kind's own mixture, where they disagree, and
    what is predicted.

    Args:
        config: of the search.
        controller: at the end of the run.
        answer: [S] the mixture of the search.
    """
    names = config.source_names
    found = controller.surface()
    alone = controller.answers_alone()
    mixtures = {"uniform": np.full(len(names), 1 / len(names)), "answer": answer, **alone}
    return {
        "answer_from": "surface",
        "trained_on": dict(zip(names, controller.mixture.tolist(), strict=True)),
        "evidence": {
            kind: dict(zip(names, mixture.tolist(), strict=True)) for kind, mixture in alone.items()
        },
        "disagreements": disagreements(names, alone),
        "predictions": predictions(config, found, mixtures),
        "predicted_gain": gains_by_target(config, found, answer),
    }


def predictions(
    config: Config, found: LossSurface, mixtures: dict[str, FloatArray]
) -> dict[str, dict[str, dict[str, float]]]:
    """Expected losses in nats per token with standard deviations, by mixture and target."""
    predicted = found.predict(np.stack(list(mixtures.values())))
    targets = [target.name for target in config.targets]
    return {
        name: {
            target: {
                "loss": float(mean),
                "deviation": float(deviation),
                "low": float(mean - SIGMAS * deviation),
                "high": float(mean + SIGMAS * deviation),
            }
            for target, mean, deviation in zip(targets, means, deviations, strict=True)
        }
        for name, means, deviations in zip(
            mixtures, predicted.mean, predicted.deviation, strict=True
        )
    }


def gains_by_target(
    config: Config, found: LossSurface, answer: FloatArray
) -> dict[str, dict[str, float]]:
    """By how much the answer's loss is expected below the even mixture's, by target."""
    means, deviations = found.differences(answer, np.full(len(answer), 1 / len(answer)))
    return {
        target.name: {"gain": -float(mean), "deviation": float(deviation)}
        for target, mean, deviation in zip(config.targets, means, deviations, strict=True)
    }


def bigram_warnings(names: list[str], recorded: Recorded, tokens: float) -> list[str]:
    """Of targets on which the run's model is no stronger than bigrams of the data.

    Args:
        names: of the targets.
        recorded: the run's evidence.
        tokens: that the run trained on.
    """
    ngrams = recorded.ngrams
    if ngrams is None:
        return []
    losses = ngrams.losses_by_length(recorded.reference, tokens)[0]
    weak = [
        f"{name} ({own.level:.2f} nats per token, bigrams {loss:.2f})"
        for name, own, loss, length in zip(
            names, recorded.evidence, losses, ngrams.lengths, strict=True
        )
        if length == 1
    ]
    if not weak:
        return []
    return [
        f"The run's model is no stronger than bigrams of its data on {', '.join(weak)}. Such a "
        "model learns from any text with the right bigrams, a large one does not: search with more "
        "tokens or a larger proxy before a large run trains on this mixture."
    ]


def disagreements(names: list[str], alone: dict[str, FloatArray]) -> list[str]:
    """In words, the sources that one kind of evidence wants and another does not; the largest
    differences first."""
    if len(alone) < 2:
        return []
    ngrams, scores = alone["ngrams"], alone["scores"]
    even = 1 / len(names)
    found = [
        (abs(first - second), f"n-grams want {first:.0%} of {name}, the run's scores {second:.0%}")
        for name, first, second in zip(names, ngrams, scores, strict=True)
        if max(first, second) > even and min(first, second) < even / 2
    ]
    return [text for _, text in sorted(found, key=lambda each: -each[0])]


def write_run_surface(
    config: Config,
    inputs: Inputs,
    controller: SurfaceController,
    mixture: MixtureFile,
    budget: float,
) -> None:
    """surface.json in the run folder.

    Args:
        config: of the search.
        inputs: its data.
        controller: at the end of the run.
        mixture: the answer, with what each kind of evidence wants by itself.
        budget: tokens of the run that the answer is for.
    """
    names = config.source_names
    anchors = [
        np.full(len(names), 1 / len(names)),
        controller.mixture,
        np.array([source.weight for source in mixture.sources]),
        *(np.array([each[name] for name in names]) for each in mixture.search["evidence"].values()),
    ]
    terms = Terms(
        names,
        [target.name for target in config.targets],
        target_weights(config),
        np.array([source.num_tokens for source in inputs.sources], np.float64),
        budget,
    )
    path = Path(config.run_dir) / SURFACE_FILE
    write_surface(path, terms, controller.recorded(), np.stack(anchors), config.seed)


def register_predictions(run_dir: str, mixture: MixtureFile) -> None:
    """predictions.json: what the search says of some mixtures, before any of them is retrained."""
    search = mixture.search
    answer = mixture.weights
    even = dict.fromkeys(answer, 1 / len(answer))
    content = {
        "schema": PREDICTIONS_SCHEMA,
        "unit": "nats per token",
        "mixtures": {"uniform": even, "answer": answer, **search["evidence"]},
        "predictions": search["predictions"],
    }
    write_json(Path(run_dir) / PREDICTIONS_FILE, content)
