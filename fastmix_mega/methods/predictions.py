"""Predicted losses of any mixture, from a search's surface.json and its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.schema import Config, load_common_config
from fastmix_mega.data.run_inputs import Inputs, open_inputs
from fastmix_mega.errors import MISSHAPEN, UserError
from fastmix_mega.files import read_jsonl
from fastmix_mega.methods.base import target_weights
from fastmix_mega.methods.run_evidence import read_runs
from fastmix_mega.methods.surface_evidence import surface_answer
from fastmix_mega.mixture.constraints.apply import epochs_at
from fastmix_mega.mixture.file import MixtureFile, mixture_path, read_mixture, resolve_mixture
from fastmix_mega.mixture.next_run import most_telling
from fastmix_mega.mixture.ngram_loss import read_counts
from fastmix_mega.mixture.simplex import effective_sources, entropy
from fastmix_mega.mixture.surface import SIGMAS, LossSurface
from fastmix_mega.mixture.surface_file import SURFACE_FILE, ngram_model, read_surface_file
from fastmix_mega.mixture.surface_fit import Recorded
from fastmix_mega.training.seed_folders import seed_folders

BEST = "best with evidence"
"""Of the mixtures that are predicted: the least loss once more runs are known."""
KEPT = (
    *("method", "answer_from", "objective", "config_sha256", "seed", "steps", "train_tokens"),
    *("constraints", "warnings", "init_from"),
)
"""What a mixture with more evidence says of its search, in mixture.json's `search`."""
CANDIDATES = 24
"""Draws of the posterior whose best mixtures a next run may be on."""


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
    file = read_surface_file(path)
    if file.sources != config.source_names:
        raise UserError(f"{path} is of other sources; search again in another folder")
    if file.ngrams is None:
        return file.recorded
    counts = read_counts(
        inputs.sources, inputs.targets, inputs.tokenizer.vocab_size, file.ngrams["longest_context"]
    )
    return replace(file.recorded, ngrams=ngram_model(counts, file.ngrams))


def why_no_surface(run_dir: Path) -> str:
    """Why a folder holds no loss surface, and what to do; empty if it holds one."""
    if (run_dir / SURFACE_FILE).is_file():
        return ""
    if not (run_dir / "config.yaml").is_file():
        if seeds := seed_folders(run_dir):
            return f"{run_dir} holds the runs of several seeds; name one, for example {seeds[0]}"
        return f"{run_dir} is not a run folder: it has no config.yaml"
    if (run_dir / "mixture.json").is_file():
        return f"{run_dir} left no loss surface: a search with search.answer: surface writes one"
    try:
        steps = [row["step"] for row in read_jsonl(run_dir / "metrics.jsonl") if "step" in row]
    except (OSError, ValueError):
        steps = []
    whole = load_common_config(run_dir / "config.yaml").train.steps
    made = f"it has made {steps[-1]} of {whole} steps" if steps else "it has made no step yet"
    return (
        f"the run in {run_dir} has not finished ({made}); a search writes its loss surface at its "
        "end. Start the same command again to go on"
    )


class Foresight:
    """A finished search's surface, with more runs if there are any, and what can be asked of it.

    Args:
        run_dir: of the search.
        config: of the search; read from the run folder by default.
        evidence: more finished runs, as in `search.evidence`.

    Raises:
        UserError: if the run has not finished or left no surface, or a file is wrong.
    """

    def __init__(
        self, run_dir: Path, config: Config | None = None, evidence: Sequence[str] = ()
    ) -> None:
        if reason := why_no_surface(run_dir):
            raise UserError(reason)
        if config is None:
            config = load_common_config(run_dir / "config.yaml")
        self._run_dir, self._config = run_dir, config
        self._file = _mixture_of(run_dir, config)
        self._inputs = open_inputs(config)
        recorded = read_evidence(run_dir, config, self._inputs)
        sha256 = self._inputs.tokenizer.sha256
        self.runs = read_runs(evidence, config, sha256) if evidence else None
        """What was read of the evidence; None without any."""
        self._surface = recorded.with_runs(None if self.runs is None else self.runs.values)

    @cached_property
    def best(self) -> FloatArray:
        """[S] the best mixture within the search's limits."""
        weights = target_weights(self._config)
        # A surface may have several hollows: the search's own answer lies in one.
        starts = (None, np.array([source.weight for source in self._file.sources]))
        answers = [
            surface_answer(self._config, self._inputs, self._surface, start=start)
            for start in starts
        ]
        return min(answers, key=lambda answer: self._surface.objective(answer, weights)[0])

    @cached_property
    def _draws(self) -> list[FloatArray]:
        """[S] each: the best mixtures of draws of the posterior."""
        return [
            surface_answer(self._config, self._inputs, self._surface, each, self.best)
            for each in self._surface.drawn(CANDIDATES, self._config.seed)
        ]

    def next_run(self) -> dict[str, float]:
        """By source, the mixture on which a run would tell most about the best one."""
        config, candidates = self._config, np.stack([self.best, *self._draws])
        weights = target_weights(config)
        chosen = most_telling(self._surface, candidates, weights, config.seed)
        return dict(zip(config.source_names, candidates[chosen].tolist(), strict=True))

    def mixture_file(self, evidence: Sequence[str]) -> MixtureFile:
        """The best mixture as a search writes it, for exports and trainings.

        Args:
            evidence: the runs that it rests on besides the search, for the record.
        """
        file, best = self._file, self.best
        errors = np.sqrt(np.mean((np.array(self._draws) - best) ** 2, axis=0))
        trained = file.search.get("train_tokens")
        tokens = [source.num_tokens for source in self._inputs.sources]
        epochs = epochs_at(best, tokens, trained if isinstance(trained, int) else None)
        sources = [
            source.model_copy(
                update={"weight": weight, "stderr": error, "gain": None, "epochs_at_budget": times}
            )
            for source, weight, error, times in zip(
                file.sources, best.tolist(), errors.tolist(), epochs, strict=True
            )
        ]
        even = np.full(len(best), 1 / len(best))
        weights = target_weights(self._config)
        search = {key: file.search[key] for key in KEPT if key in file.search} | {
            "entropy": entropy(best),
            "effective_sources": effective_sources(best),
            "probability_better": self._surface.probability_better(best, even, weights),
            "evidence_runs": list(evidence),
        }
        return file.model_copy(update={"sources": sources, "search": search})

    def rows(self, mixtures: Sequence[str]) -> list[dict[str, Any]]:
        """One row per mixture and target: loss, standard deviation, the 90% interval and the
        mixture.

        Args:
            mixtures: mixture files, run folders, `uniform` or `proportional`; empty for those that
                the search itself predicted.
        """
        names = self._config.source_names
        tokens = [each.num_tokens for each in self._inputs.sources]
        given = self._named(mixtures, tokens)
        if self.runs is not None:
            given[BEST] = self.best
        predicted = self._surface.predict(np.stack(list(given.values())))
        targets = [target.name for target in self._config.targets]
        return [
            {
                "mixture": name,
                "target": target,
                "loss": round(float(mean), 5),
                "deviation": round(float(deviation), 5),
                "low": round(float(mean - SIGMAS * deviation), 5),
                "high": round(float(mean + SIGMAS * deviation), 5),
                "weights": dict(zip(names, given[name].round(9).tolist(), strict=True)),
            }
            for name, means, deviations in zip(
                given, predicted.mean, predicted.deviation, strict=True
            )
            for target, mean, deviation in zip(targets, means, deviations, strict=True)
        ]

    def _named(self, mixtures: Sequence[str], tokens: list[int]) -> dict[str, FloatArray]:
        """[S] by name."""
        names, path = self._config.source_names, self._run_dir / "mixture.json"
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
        found = {"uniform": np.full(len(names), 1 / len(names))}
        found["answer"] = resolve_mixture(str(path), names, tokens, "mixture.json")
        try:
            for kind, weights in self._file.search.get("evidence", {}).items():
                found[kind] = np.array([weights[name] for name in names], np.float64)
                if not np.isfinite(found[kind]).all():
                    raise ValueError
        except MISSHAPEN:
            raise UserError(f"{path}: its evidence is damaged") from None
        return found


def predict_mixtures(
    run_dir: Path, mixtures: Sequence[str], config: Config | None = None
) -> list[dict[str, Any]]:
    """What a finished search says of mixtures; see `Foresight`.

    Raises:
        UserError: if a file is wrong.
    """
    return Foresight(run_dir, config).rows(mixtures)


def _mixture_of(run_dir: Path, config: Config) -> MixtureFile:
    """A search's answer, its sources in the configuration's order.

    Raises:
        UserError: if it is of others.
    """
    path = run_dir / "mixture.json"
    file = read_mixture(path)
    by_name = {source.name: source for source in file.sources}
    if set(by_name) != set(config.source_names):
        raise UserError(f"{path} is of other sources; search again in another folder")
    return file.model_copy(update={"sources": [by_name[name] for name in config.source_names]})
