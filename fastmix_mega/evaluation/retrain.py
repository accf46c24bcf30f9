"""Is a found mixture better than another? Fresh models, trained by sampling, on held-out text.

This is the only valid judge of a mixture. A search weights losses, looks at the targets and moves
its mixture on the way; here every mixture is trained from its beginning to its end by plain
sampling, as the large run will be. Mixtures share their seeds, so that differences are paired.
"""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from fastmix_mega.config.schema import Config
from fastmix_mega.config.sections import SourceConfig
from fastmix_mega.configuration import load_config
from fastmix_mega.errors import UserError
from fastmix_mega.files import read_jsonl
from fastmix_mega.methods.predictions import predict_mixtures, why_no_surface
from fastmix_mega.methods.surface_evidence import PREDICTIONS_FILE
from fastmix_mega.mixture.file import RULES, mixture_path, read_mixture

CONFIDENCE = 0.95
QUIET = ("log.wandb=disabled", "evaluation.every=0", "checkpoint.final=false", "stages=[]")
Losses = dict[str, float]
"""Nats per token by evaluation set."""

Predictions = dict[str, dict[str, tuple[float, float, float]]]
"""Loss and the ends of its 90% interval, by mixture and target."""


@dataclass(frozen=True)
class Candidate:
    """A mixture to train on."""

    name: str
    weights: str | dict[str, float]
    """`uniform`, `proportional`, or weights by the sources' names."""


@dataclass(frozen=True)
class Study:
    """What is trained: every candidate with every seed."""

    config_path: Path
    overrides: Sequence[str]
    candidates: Sequence[Candidate]
    """The first one is what the others are compared with."""
    seeds: Sequence[int]
    folder: Path
    """For the runs and the result."""

    def run_dir(self, candidate: Candidate, seed: int) -> Path:
        return self.folder / f"{candidate.name}_{seed}"

    def words(self, candidate: Candidate, seed: int) -> list[str]:
        """The overrides of one training run."""
        own = {
            # By name rather than by file: another mixture in the same file is another run.
            "mixture": candidate.weights,
            "seed": seed,
            "run_dir": str(self.run_dir(candidate, seed)),
        }
        return [
            *self.overrides,
            *QUIET,
            *(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in own.items()),
        ]

    def config(self, candidate: Candidate, seed: int) -> Config:
        """Of one training run."""
        return load_config(self.config_path, self.words(candidate, seed))


@dataclass(frozen=True)
class Difference:
    """A candidate's loss on one evaluation set, minus the first candidate's, over paired seeds."""

    mean: float
    standard_error: float | None
    """None with a single seed, which tells nothing of the noise."""
    low: float | None
    """The ends of the 95% interval (Student's t)."""
    high: float | None

    @property
    def verdict(self) -> str:
        """What it says, in words."""
        if self.low is None or self.high is None:
            return "one seed"
        if self.high < 0:
            return "better"
        return "worse" if self.low > 0 else "not told apart"


def candidate_of(given: str, name: str | None = None) -> Candidate:
    """A mixture by its rule, its file or its run folder.

    Raises:
        UserError: if it is neither.
    """
    if given in RULES:
        return Candidate(name or given, given)
    path = mixture_path(given)
    stem = path.resolve().parent.name if path.name == "mixture.json" else path.stem
    return Candidate(name or stem, read_mixture(path).weights)


def require_different_names(candidates: Sequence[Candidate]) -> None:
    """Raises: UserError if two candidates would share a folder."""
    names = [candidate.name for candidate in candidates]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"two mixtures are named {name}, after their folders or files; copy one to a file "
                "of another name"
            )


def configuration_of(run: Path) -> Path:
    """The configuration of a search's run folder, or of a folder that pools several seeds'.

    Raises:
        UserError: if there is none.
    """
    path = run / "config.yaml"
    if not path.is_file() and (run / "mixture.json").is_file():
        for entry in read_mixture(run / "mixture.json").search.get("per_seed") or []:
            path = run / str(entry.get("run") or f"seed_{entry.get('seed')}") / "config.yaml"
            break
    if not path.is_file():
        raise UserError(
            f"{run} is not a run folder: it has no config.yaml. Give the folder that a search "
            "wrote (its run_dir)"
        )
    return path


def judged_on(config: Config) -> tuple[list[str], list[str]]:
    """On which text the models are judged.

    Returns:
        Overrides that say so, and what the user must know.

    Raises:
        UserError: if the configuration names neither evaluation sets nor targets.
    """
    if config.evaluation.sets:
        return [], []
    if not config.targets:
        raise UserError("there is nothing to judge on: name evaluation.sets in the configuration")
    return [targets_as_sets(config)], [
        "warning: judged on the targets themselves, on which the search was steered; name "
        "evaluation.sets for text that it has not seen"
    ]


def targets_as_sets(config: Config) -> str:
    """The override that judges on the targets."""
    sets = [{"name": target.name, "prefix": target.prefix} for target in config.targets]
    return f"evaluation.sets={json.dumps(sets, ensure_ascii=False)}"


def predictions_of(
    run: Path, candidates: Sequence[Candidate], given: Sequence[str], judged: Config
) -> tuple[Predictions, str]:
    """What a search said of mixtures, on the sets that they are judged on: as it was registered at
    its end, and of others what its loss surface says now.

    A set is a target's if it has the target's name, or the same files.

    Args:
        run: the run folder of the search.
        candidates: the mixtures.
        given: how the user named them.
        judged: names the evaluation sets.

    Returns:
        By mixture and set; and why some or all are missing, in words.

    Raises:
        UserError: if a file of the run folder is damaged.
    """
    if reason := why_no_surface(run):
        return {}, f"no predictions: {reason}"
    config = load_config(run / "config.yaml")
    by_target = _by_target(run, candidates, given, config)
    target_of = {each.name: _target_of(each, config.targets) for each in judged.evaluation.sets}
    found = {
        mixture: {
            name: losses[target]
            for name, target in target_of.items()
            if target is not None and target in losses
        }
        for mixture, losses in by_target.items()
    }
    missing = [name for name, target in target_of.items() if target is None]
    if not missing:
        return found, ""
    targets = ", ".join(target.name for target in config.targets)
    return found, (
        f"no predictions for {', '.join(missing)}: the search predicts losses on its targets alone "
        f"({targets}), and no target has this name or these files"
    )


def _by_target(
    run: Path, candidates: Sequence[Candidate], given: Sequence[str], config: Config
) -> Predictions:
    found: Predictions = {}
    mixtures, registered = registered_predictions(run)
    later: dict[str, str] = {}
    for candidate, words in zip(candidates, given, strict=True):
        name = next((name for name in mixtures if _same(candidate, name, mixtures[name])), None)
        if name is None:
            later[words] = candidate.name
        else:
            found[candidate.name] = registered[name]
    if later:
        for row in predict_mixtures(run, list(later), config):
            by_target = found.setdefault(later[row["mixture"]], {})
            by_target[row["target"]] = (row["loss"], row["low"], row["high"])
    return found


def _target_of(judged: SourceConfig, targets: Sequence[SourceConfig]) -> str | None:
    """The target that an evaluation set is of: by its name, else by its files."""
    files = {os.path.realpath(prefix) for prefix in judged.prefixes}
    for target in targets:
        if target.name == judged.name:
            return target.name
    for target in targets:
        if {os.path.realpath(prefix) for prefix in target.prefixes} == files:
            return target.name
    return None


def registered_predictions(run: Path) -> tuple[dict[str, dict[str, float]], Predictions]:
    """Mixtures by name, and what was predicted of them, from a search's predictions.json; empty
    without one.

    Raises:
        UserError: if it is damaged.
    """
    path = run / PREDICTIONS_FILE
    try:
        content = json.loads(path.read_bytes())
        mixtures: dict[str, dict[str, float]] = content["mixtures"]
        return mixtures, {
            name: {
                target: (float(each["loss"]), float(each["low"]), float(each["high"]))
                for target, each in content["predictions"][name].items()
            }
            for name in mixtures
        }
    except FileNotFoundError:
        return {}, {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is damaged, or is not what a search writes") from None


def _same(candidate: Candidate, name: str, mixture: dict[str, float]) -> bool:
    if isinstance(candidate.weights, str):
        return candidate.weights == name
    alike = candidate.weights.keys() == mixture.keys()
    return alike and all(
        abs(share - mixture[source]) < 1e-6 for source, share in candidate.weights.items()
    )


def final_losses(run_dir: Path) -> Losses:
    """The last evaluation of a finished run."""
    rows = [row["eval"] for row in read_jsonl(run_dir / "metrics.jsonl") if "eval" in row]
    assert rows, f"{run_dir} holds no evaluation"
    return {str(name): float(loss) for name, loss in rows[-1].items()}


def difference(mine: Sequence[float], first: Sequence[float]) -> Difference:
    """Of losses with the same seeds in the same order."""
    gaps = [a - b for a, b in zip(mine, first, strict=True)]
    mean = statistics.mean(gaps)
    if len(gaps) < 2:
        return Difference(mean, None, None, None)
    error = statistics.stdev(gaps) / math.sqrt(len(gaps))
    reach = float(student.ppf((1 + CONFIDENCE) / 2, len(gaps) - 1)) * error
    return Difference(mean, error, mean - reach, mean + reach)


def table(results: dict[str, list[Losses]], predicted: Predictions | None = None) -> str:
    """The result as Markdown: by evaluation set, every candidate and its difference to the first.

    Args:
        results: losses by candidate, one entry a seed; the first candidate is the baseline.
        predicted: what the search said of them; None where it said nothing.
    """
    first = next(iter(results))
    seeds = len(results[first])
    lines = [
        f"| set | mixture | loss | SD | minus {first} | 95% interval | |",
        "|---|---|---|---|---|---|---|",
    ]
    if predicted:
        lines = [f"{lines[0]} predicted, 90% interval |", f"{lines[1]}---|"]
    for name in results[first][0]:
        baseline = [losses[name] for losses in results[first]]
        for candidate, runs in results.items():
            mine = [losses[name] for losses in runs]
            deviation = f"{statistics.stdev(mine):.4f}" if seeds > 1 else "?"
            row = f"| {name} | {candidate} | {statistics.mean(mine):.4f} | {deviation} "
            if candidate == first:
                row += "| | | |"
            else:
                gap = difference(mine, baseline)
                interval = "?" if gap.low is None else f"{gap.low:+.4f} to {gap.high:+.4f}"
                row += f"| {gap.mean:+.4f} | {interval} | {gap.verdict} |"
            if predicted:
                expected = predicted.get(candidate, {}).get(name)
                if expected is None:
                    row += " |"
                else:
                    row += f" {expected[0]:.3f}, {expected[1]:.3f} to {expected[2]:.3f} |"
            lines.append(row)
    return "\n".join(lines)


def record(
    study: Study, results: dict[str, list[Losses]], predicted: Predictions | None = None
) -> dict[str, Any]:
    """Everything that the table is made of, for a JSON file."""
    first = next(iter(results))
    config = study.config(study.candidates[0], study.seeds[0])
    return {
        "configuration": str(study.config_path),
        "overrides": list(study.overrides),
        "model": config.model.model_dump(mode="json", exclude_defaults=True),
        "train_tokens": config.train.tokens,
        "seeds": list(study.seeds),
        "baseline": first,
        "mixtures": {each.name: each.weights for each in study.candidates},
        "losses": results,
        "predicted": predicted or {},
        "differences": {
            name: {
                where: vars(
                    difference([run[where] for run in runs], [run[where] for run in results[first]])
                )
                for where in runs[0]
            }
            for name, runs in results.items()
            if name != first
        },
    }
