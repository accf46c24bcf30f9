"""`fastmix export`: from mixture.json to a trainer's file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from fastmix_mega.config.constraints import Constraints
from fastmix_mega.errors import UserError
from fastmix_mega.export.formats import writer_of
from fastmix_mega.export.plan import Plan
from fastmix_mega.files import write_atomic
from fastmix_mega.mixture.constraints.apply import Constrained, ConstraintSet, Sources, epochs_at
from fastmix_mega.mixture.file import MixtureFile, mixture_path, read_mixture
from fastmix_mega.mixture.simplex import effective_sources, entropy
from fastmix_mega.output_file import ResultFile, notes_beside, require_output_file
from fastmix_mega.quantities import in_epochs

BEARABLE_EPOCHS = 4
"""Beyond it, repeated text is known to teach little (Muennighoff et al., 2023)."""


@dataclass(frozen=True)
class Exported:
    path: Path
    lines: list[str]
    """What the user should see, the table first."""


def export_mixture(
    path: str | Path,
    to: str,
    output: str | Path | ResultFile,
    constraints: Constraints | None = None,
    budget_tokens: int | None = None,
    paths: str | None = None,
    valid: Sequence[str] = (),
) -> Exported:
    """Write a mixture in a trainer's format.

    Args:
        path: a mixture.json, or a run folder that holds one.
        to: a name in `formats.FORMATS`.
        output: the file to write.
        constraints: met exactly before writing.
        budget_tokens: of the large run, for epochs.
        paths: a template with {name} or {prefix}.
        valid: held-out prefixes.

    Raises:
        UserError: if the constraints contradict each other, or the format cannot hold the mixture.
    """
    form = writer_of(to)
    output = require_output_file(output, [mixture_path(path)])
    if not form.notes_inside and to != "fastmix":
        require_output_file(notes_beside(output), [mixture_path(path)])
    mixture = read_mixture(mixture_path(path))
    if mixture.stages:
        phases = ", ".join(stage.run or stage.name for stage in mixture.stages)
        raise UserError(
            f"{path} is a plan of {len(mixture.stages)} phases, and {to} holds one mixture: export "
            f"each phase's own ({phases}) for a restart in between"
        )
    if constraints is not None and budget_tokens is not None:
        constraints = constraints.at_budget(budget_tokens)
    if budget_tokens is None and constraints is not None:
        budget_tokens = constraints.budget_tokens
    result = None if constraints is None else constrain(mixture, constraints, str(path))
    if result is not None:
        mixture = constrained_mixture(mixture, result, constraints)
    mixture = at_budget(mixture, budget_tokens)
    plan = Plan(mixture, paths, budget_tokens, valid, _notes(mixture, to, str(path)))
    meaning = [form.sentence, *(form.notes(plan) if form.notes is not None else [])]
    plan = replace(plan, notes=[*plan.notes, *meaning])
    assert form.write is not None
    write_atomic(output, form.write(plan))
    lines = describe(mixture, budget_tokens, result)
    if not form.notes_inside and to != "fastmix":
        beside = notes_beside(output)
        told = {f"warning: {text}" for text in warnings_of(mixture)}  # Among the notes.
        rest = [line for line in lines if line not in told]
        write_atomic(beside, "\n".join([*plan.notes, *rest, f"Use: {form.use}"]) + "\n")
        lines.append(f"notes: {beside}")
    dropped = [source.name for source in mixture.sources if source.weight == 0]
    if dropped and to not in ("fastmix", "csv"):
        lines.append(f"left out, since their weight is 0: {', '.join(dropped)}")
    return Exported(output, [*lines, *meaning, f"use: {form.use}"])


def constrain(mixture: MixtureFile, constraints: Constraints, where: str) -> Constrained:
    """The nearest mixture within the constraints. Raises: UserError."""
    names = [source.name for source in mixture.sources]
    sources = Sources(names, [source.tokens for source in mixture.sources])
    weights = np.array([source.weight for source in mixture.sources])
    return ConstraintSet(constraints, sources, where).apply(weights / weights.sum())


def constrained_mixture(
    mixture: MixtureFile, result: Constrained, constraints: Constraints | None
) -> MixtureFile:
    """The mixture with new weights; standard errors are those of the search, unchanged."""
    weights = result.weights / result.weights.sum()
    sources = [
        source.model_copy(update={"weight": float(weight)})
        for source, weight in zip(mixture.sources, weights, strict=True)
    ]
    search = mixture.search | {
        "entropy": entropy(weights),
        "effective_sources": effective_sources(weights),
        "constraints": None if constraints is None else constraints.model_dump(mode="json"),
        "unconstrained": dict(
            zip([source.name for source in sources], result.before.tolist(), strict=True)
        ),
    }
    return mixture.model_copy(update={"sources": sources, "search": search})


def at_budget(mixture: MixtureFile, budget_tokens: int | None) -> MixtureFile:
    """The mixture with its epochs at a budget, or at the search's own if none is given."""
    own = mixture.search.get("train_tokens")
    budget = budget_tokens or (own if isinstance(own, int) else None)
    if budget is None:
        return mixture
    weights = [source.weight for source in mixture.sources]
    epochs = epochs_at(weights, [source.tokens for source in mixture.sources], budget)
    sources = [
        source.model_copy(update={"epochs_at_budget": times})
        for source, times in zip(mixture.sources, epochs, strict=True)
    ]
    given = {} if budget_tokens is None else {"budget_tokens": budget_tokens}
    return mixture.model_copy(update={"sources": sources, "search": mixture.search | given})


def describe(
    mixture: MixtureFile, budget_tokens: int | None, result: Constrained | None = None
) -> list[str]:
    """The table of shares and epochs, what the constraints did, and warnings."""
    own_budget = mixture.search.get("train_tokens")
    budget = budget_tokens or (own_budget if isinstance(own_budget, int) else None)
    weights = [source.weight for source in mixture.sources]
    epochs = epochs_at(weights, [source.tokens for source in mixture.sources], budget)
    wide = max(6, *(len(source.name) for source in mixture.sources))
    before = "  found" if result is not None else ""
    lines = [f"{'source':<{wide}}   share{before}  epochs"]
    for index, source in enumerate(mixture.sources):
        found = f" {result.before[index]:6.2%}" if result is not None else ""
        times = epochs[index]
        shown = "     ?" if times is None else f"{in_epochs(times):>6}"
        mark = "  read too often" if times is not None and times > BEARABLE_EPOCHS else ""
        lines.append(f"{source.name:<{wide}}  {source.weight:6.2%}{found}  {shown}{mark}")
    if budget is None:
        lines.append("epochs: give --budget-tokens, the tokens of the large run")
    elif budget_tokens is None:
        lines.append(
            f"epochs are at the search's own {budget:,} tokens; give --budget-tokens, the tokens "
            "of the large run, to see what matters"
        )
    else:
        lines.append(f"epochs are at {budget:,} tokens")
    often = [
        f"{source.name} ({in_epochs(times)} times)"
        for source, times in zip(mixture.sources, epochs, strict=True)
        if times is not None and times > BEARABLE_EPOCHS
    ]
    if often:
        lines.append(
            f"warning: read more than {BEARABLE_EPOCHS} times: {', '.join(often)}; get more text, "
            "or set max_epochs"
        )
    if result is not None:
        lines += _effect(mixture, result)
    return [*lines, *(f"warning: {text}" for text in warnings_of(mixture))]


def warnings_of(mixture: MixtureFile) -> list[str]:
    """What its search warned of, in plain words."""
    found = mixture.search.get("warnings")
    return [str(text) for text in found] if isinstance(found, list) else []


def _effect(mixture: MixtureFile, result: Constrained) -> list[str]:
    lines = [f"limit reached: {why}" for why in result.holding]
    if not lines:
        lines = ["no limit is reached"]
    lines.append(f"distance to the found mixture: {result.distance:.4f} nats (KL)")
    cost = result.predicted_cost([source.gain for source in mixture.sources])
    if cost is None:
        lines.append("predicted cost: unknown, since this mixture tells no gains")
    else:
        lines.append(
            f"predicted cost: {cost:+.4f} nats per token of target loss for the proxy (first "
            "order; small shifts only)"
        )
    return lines


def _notes(mixture: MixtureFile, to: str, origin: str) -> list[str]:
    search = mixture.search
    notes = [
        f"Data mixture by fastmix-mega {version('fastmix-mega')}, from {origin}, for {to}.",
    ]
    if mixture.tokenizer.get("sha256"):
        notes.append(f"Tokenizer: SHA-256 {mixture.tokenizer['sha256']}.")
    if search.get("config_sha256"):
        notes.append(f"Search: configuration SHA-256 {search['config_sha256']}.")
    if search.get("constraints"):
        notes.append("Constraints were applied.")
    return [*notes, *(f"Warning: {text}" for text in warnings_of(mixture))]
