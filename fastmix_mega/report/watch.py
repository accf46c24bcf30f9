"""`fastmix watch`: a training run's shares and losses beside what was asked and predicted.

Of our own runs metrics.jsonl tells sequences and loss by source. Logs of Megatron and torchtitan
tell one loss, and Megatron's the losses of its validation sets: what they do not tell is said, and
not guessed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastmix_mega.config.parse import read_yaml_file
from fastmix_mega.errors import MISSHAPEN, UserError
from fastmix_mega.files import read_jsonl
from fastmix_mega.reading import read_json

SHARE_SIGMAS = 5.0
"""Beyond it, observed shares are no chance: systematic sampling has less noise than this counts."""
LOSS_WINDOW = 20
"""Logged lines whose mean is the present loss, and whose spread its error."""
_MEGATRON_STEP = re.compile(r"iteration\s+(\d+)\s*/\s*(\d+)\s*\|")
_MEGATRON_VALUE = re.compile(r"\|\s*([a-z][a-z _/-]*?):\s*([-+0-9.eE]+|nan|inf)\s*(?=\|)", re.I)
_MEGATRON_EVALUATION = re.compile(
    r"validation loss at iteration\s+(\d+)(?:\s+on\s+([^|]+?))?\s*\|\s*lm loss value:\s*"
    r"([-+0-9.eE]+|nan)",
    re.I,
)
_TORCHTITAN_STEP = re.compile(r"step:\s*([\d,]+)\s+loss:\s*([-+0-9.eE]+|nan)", re.I)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Watched:
    """What a run has logged so far."""

    kind: str
    """`fastmix`, `megatron` or `torchtitan`."""
    step: int = 0
    losses: list[float] = field(default_factory=list)
    """The training loss, one a logged line."""
    counts: dict[str, int] = field(default_factory=dict)
    """Sequences drawn, by source; empty where the log does not tell."""
    source_losses: dict[str, list[float]] = field(default_factory=dict)
    evaluations: dict[str, float] = field(default_factory=dict)
    """The newest loss on each held-out set."""


def read_run(path: Path) -> Watched:
    """A run folder of ours, or a log.

    Raises:
        UserError: if there is nothing to read, or nothing that is known in it.
    """
    if path.is_dir():
        return _own(path)
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    text = _COLOUR.sub("", text)
    for reader in (_megatron, _torchtitan):
        found = reader(text)
        if found.losses or found.evaluations:
            return found
    raise UserError(
        f"{path} has no line of training that is known: a run folder of fastmix, or a log of "
        "Megatron (iteration N/ M | ... lm loss: ...) or torchtitan (step: N loss: ...)"
    )


def describe(
    run: Watched, asked: Mapping[str, float] | None, predicted: Mapping[str, float] | None
) -> tuple[list[str], list[str]]:
    """A table, and warnings where the run has drifted from what was asked or predicted.

    Args:
        run: as read.
        asked: shares by source, or None.
        predicted: final losses by held-out set, or None.
    """
    lines, warnings = [f"{run.kind} run at step {run.step:,}"], []
    if run.losses:
        mean, error = _present(run.losses)
        last = min(LOSS_WINDOW, len(run.losses))
        lines.append(f"training loss {mean:.4f} +- {error:.4f} (last {last} logged)")
        if not math.isfinite(run.losses[-1]):
            warnings.append(f"the last logged loss is {run.losses[-1]}")
    if run.counts:
        shown, drifted = _shares(run, asked)
        lines += shown
        warnings += drifted
    elif asked is not None:
        lines.append(
            f"shares: this log does not tell them; {len(asked)} sources were asked for. Its "
            "trainer's own check is needed"
        )
    for name, loss in run.evaluations.items():
        line = f"held-out {name}: {loss:.4f}"
        if predicted is not None and name in predicted:
            line += f", predicted at the end {predicted[name]:.4f}"
        lines.append(line)
    if run.evaluations and predicted is not None:
        warnings += _below_prediction(run, predicted)
    return lines, warnings


def _own(folder: Path) -> Watched:
    try:
        rows = read_jsonl(folder / "metrics.jsonl")
        names = _names(folder)
    except (OSError, *MISSHAPEN) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{folder} is no run folder with metrics: {reason}") from None
    run = Watched("fastmix")
    try:
        _add_rows(run, rows, names)
    except MISSHAPEN as error:
        raise UserError(f"{folder}/metrics.jsonl is damaged ({error!r:.200})") from None
    if not rows:
        raise UserError(f"{folder}/metrics.jsonl is empty so far")
    return run


def _add_rows(run: Watched, rows: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    for row in rows:
        if "eval" in row:
            run.evaluations |= row["eval"]
            continue
        run.step = int(row["step"])
        run.losses.append(float(row["loss"]))
        run.counts = dict(zip(names, row["source_count"], strict=True))
        for name, loss in zip(names, row["source_loss"], strict=True):
            if loss is not None:
                run.source_losses.setdefault(name, []).append(float(loss))


def _names(folder: Path) -> list[str]:
    content = read_yaml_file(folder / "config.yaml")
    return [str(source["name"]) for source in content["sources"]]


def asked_of_run(folder: Path) -> dict[str, float] | None:
    """The mixture of a training run: what its mixture.json says at its end, and config.yaml before.

    None for a search, which samples otherwise than it mixes, and for stages before their end.
    """
    from fastmix_mega.mixture.file import mixture_path, read_mixture

    try:
        content = read_yaml_file(folder / "config.yaml")
        names, given = [s["name"] for s in content["sources"]], content.get("mixture")
        verb = read_json(folder / "run.json")["verb"]
    except (OSError, *MISSHAPEN):
        return None
    if verb != "train":
        return None
    if (folder / "mixture.json").is_file():
        return read_mixture(folder / "mixture.json").weights
    if content.get("stages"):
        return None
    if isinstance(given, dict):
        return {str(name): float(weight) for name, weight in given.items()}
    if given == "uniform":
        return dict.fromkeys(names, 1 / len(names))
    path = mixture_path(str(given))
    if path.suffix == ".json" and path.is_file():
        return read_mixture(path).weights
    return None


def _megatron(text: str) -> Watched:
    run = Watched("megatron")
    for line in text.splitlines():
        evaluation = _MEGATRON_EVALUATION.search(line)
        if evaluation:
            name = (evaluation[2] or "validation set").strip()
            run.evaluations[name] = float(evaluation[3])
            run.step = max(run.step, int(evaluation[1]))
            continue
        step = _MEGATRON_STEP.search(line)
        if step is None:
            continue
        values = {key.strip().lower(): value for key, value in _MEGATRON_VALUE.findall(line)}
        if "lm loss" in values:
            run.step = int(step[1])
            run.losses.append(float(values["lm loss"]))
    return run


def _torchtitan(text: str) -> Watched:
    run = Watched("torchtitan")
    for step, loss in _TORCHTITAN_STEP.findall(text):
        run.step = int(step.replace(",", ""))
        run.losses.append(float(loss))
    return run


def _shares(run: Watched, asked: Mapping[str, float] | None) -> tuple[list[str], list[str]]:
    total = sum(run.counts.values())
    wide = max(6, *(len(name) for name in run.counts))
    lines, warnings = [f"{'source':<{wide}}  observed     asked      loss"], []
    if asked is not None and set(asked) != set(run.counts):
        odd = ", ".join(sorted(set(asked) ^ set(run.counts)))
        raise UserError(f"the run and the mixture have other sources: {odd}")
    for name, count in run.counts.items():
        share = count / total if total else 0.0
        wanted = None if asked is None else asked[name]
        shown = "        ?" if wanted is None else f"{wanted:9.3%}"
        losses = run.source_losses.get(name, [])
        loss = f"{_present(losses)[0]:9.4f}" if losses else "        -"
        lines.append(f"{name:<{wide}} {share:9.3%} {shown} {loss}")
        if wanted is None or not total:
            continue
        error = math.sqrt(max(wanted * (1 - wanted), 1 / total) / total)
        if abs(share - wanted) > SHARE_SIGMAS * error:
            warnings.append(
                f"{name} has {share:.3%} of {total:,} sequences, {wanted:.3%} were asked for: the "
                "run draws another mixture"
            )
    return lines, warnings


def _below_prediction(run: Watched, predicted: Mapping[str, float]) -> list[str]:
    """Held-out losses that are already lower than the end's: the prediction is not of this run."""
    return [
        f"held-out {name} is {run.evaluations[name]:.4f}, already below the {loss:.4f} predicted "
        "for the end: the prediction is for another model, tokenizer or budget"
        for name, loss in predicted.items()
        if run.evaluations.get(name, math.inf) < loss
    ]


def _present(losses: Sequence[float]) -> tuple[float, float]:
    """The mean of the last logged losses and its standard error."""
    last = [loss for loss in losses[-LOSS_WINDOW:] if math.isfinite(loss)]
    if not last:
        return math.nan, math.nan
    mean = sum(last) / len(last)
    spread = math.sqrt(sum((loss - mean) ** 2 for loss in last) / max(1, len(last) - 1))
    return mean, spread / math.sqrt(len(last))


def read_predictions(path: Path) -> dict[str, float]:
    """`name: loss` as JSON. Raises: UserError."""
    try:
        content = read_json(path)
        return {str(name): float(loss) for name, loss in content.items()}
    except (OSError, *MISSHAPEN) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path} must be a JSON object of losses by name: {reason}") from None
