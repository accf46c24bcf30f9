"""The plan of several phases as one mixture file: their mixtures, and the whole run's mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fastmix_mega.errors import UserError
from fastmix_mega.mixture.file import MixtureFile, MixtureSource, MixtureStage, versions
from fastmix_mega.mixture.simplex import MOST_EPOCHS
from fastmix_mega.quantities import in_epochs


@dataclass(frozen=True)
class Phase:
    """A phase whose mixture has been found."""

    name: str
    tokens: int
    """Of the large run."""
    found: MixtureFile
    run: str
    """The run folder of its search, as found from the plan's file."""


def plan_of(phases: Sequence[Phase], proxy_runs: float) -> MixtureFile:
    """One mixture file.

    Args:
        phases: in order; of the same sources.
        proxy_runs: what all searches and trunks cost.

    Raises:
        UserError: if the phases have different sources.
    """
    first = phases[0].found
    names = [source.name for source in first.sources]
    for phase in phases:
        if [source.name for source in phase.found.sources] != names:
            raise UserError(f"phase {phase.name} has other sources than {phases[0].name}")
    total = sum(phase.tokens for phase in phases)
    shares = [phase.tokens / total for phase in phases]
    sources = []
    for place, source in enumerate(first.sources):
        each = [phase.found.sources[place] for phase in phases]
        weight = math.fsum(s * e.weight for s, e in zip(shares, each, strict=True))
        error = math.hypot(*(s * e.stderr for s, e in zip(shares, each, strict=True)))
        times = weight * total / source.tokens if source.tokens else None
        update = {"weight": weight, "stderr": error, "epochs_at_budget": times, "gain": None}
        sources.append(source.model_copy(update=update))
    begins = [sum(phase.tokens for phase in phases[:place]) for place in range(len(phases))]
    return MixtureFile(
        sources=sources,
        targets=list({str(t.get("name")): t for p in phases for t in p.found.targets}.values()),
        tokenizer=first.tokenizer,
        search={
            "method": "phases",
            "seed": first.search.get("seed"),
            "budget_tokens": total,
            "cost_in_proxy_runs": proxy_runs,
            "warnings": [*_warnings(phases), *_read_too_often(sources)],
        },
        versions=versions(),
        stages=[
            MixtureStage(
                name=phase.name,
                from_tokens=begin,
                tokens=phase.tokens,
                weights=phase.found.weights,
                run=phase.run,
            )
            for phase, begin in zip(phases, begins, strict=True)
        ],
    )


def describe_plan(plan: MixtureFile) -> list[str]:
    """The table of shares by phase, and warnings."""
    wide = max(6, *(len(source.name) for source in plan.sources))
    columns = [max(7, len(stage.name)) for stage in plan.stages]
    heads = [f"{stage.name:>{column}}" for stage, column in zip(plan.stages, columns, strict=True)]
    lines = [f"{'source':<{wide}}  {'  '.join(heads)}    whole  epochs"]
    for source in plan.sources:
        shares = [
            f"{stage.weights[source.name]:>{column}.2%}"
            for stage, column in zip(plan.stages, columns, strict=True)
        ]
        times = source.epochs_at_budget
        shown = "?" if times is None else in_epochs(times)
        lines.append(
            f"{source.name:<{wide}}  {'  '.join(shares)}  {source.weight:7.2%}  {shown:>6}"
        )
    tokens = [f"{stage.name} {stage.tokens:,}" for stage in plan.stages]
    lines.append(f"tokens: {', '.join(tokens)}; epochs are of the whole")
    return [*lines, *(f"warning: {text}" for text in plan.search.get("warnings") or [])]


def _warnings(phases: Sequence[Phase]) -> list[str]:
    return [
        f"{phase.name}: {text}"
        for phase in phases
        for text in phase.found.search.get("warnings") or []
    ]


def _read_too_often(sources: Sequence[MixtureSource]) -> list[str]:
    """Of sources that all together are too small."""
    return [
        f"{source.name} is read {in_epochs(source.epochs_at_budget)} times in all phases together; "
        "get more text, or set max_epochs"
        for source in sources
        if source.epochs_at_budget is not None and source.epochs_at_budget > MOST_EPOCHS + 0.01
    ]
