"""What the report's sliders start from: the mixture that was found, its gains, sizes and limits.

`projection.js` solves the same projection as `constraints/solve.py` in the page, offline, and
`surface.js` finds the best mixture as `mixture/surface.py` does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from fastmix_mega.config.constraints import Constraints
from fastmix_mega.errors import UserError
from fastmix_mega.mixture.constraints.apply import ConstraintSet, Sources
from fastmix_mega.mixture.constraints.solve import Node
from fastmix_mega.mixture.surface import SIGMAS
from fastmix_mega.report.read import Run
from fastmix_mega.report.sources import MAXIMUM_EPOCHS, Mixture, SourceView

ROWS = 20
"""Sources with sliders; the lighter ones take part without limits of their own."""


def what_if(
    run: Run, mixture: Mixture | None, contradicted: Sequence[str] = ()
) -> dict[str, Any] | None:
    """The page's data for the sliders; None where there is no found mixture to change.

    With a loss surface the page finds the best mixture within the limits, without one the nearest.

    Args:
        run: of the page.
        mixture: its answer.
        contradicted: targets of which the surface predicted what retraining did not show.

    Raises:
        UserError: if the mixture file's constraints are broken.
    """
    if run.mixture is None or mixture is None or mixture.is_training or len(run.names) < 2:
        return None
    given = run.mixture.search.get("constraints")
    limits = _constraints(given, run) if given else None
    free = run.mixture.search.get("unconstrained")
    weights = {source.name: source.weight for source in mixture.sources}
    searched = limits is not None and run.surface is None
    if searched and isinstance(free, dict) and set(free) == set(weights):
        weights = {name: float(free[name]) for name in weights}
    tokens = [source.tokens for source in run.mixture.sources]
    root = Node(1.0, 1.0, list(range(len(run.names))))
    lower, upper = [0.0] * len(run.names), [1.0] * len(run.names)
    budget = run.mixture.search.get("train_tokens")
    if limits is not None:
        # Epochs have a control of their own in the page.
        apart = limits.model_copy(update={"max_epochs": None, "budget_tokens": None, "prior": None})
        resolved = ConstraintSet(apart, Sources(run.names, [None] * len(tokens)), "constraints")
        root, lower, upper = resolved.root, resolved.lower.tolist(), resolved.upper.tolist()
        budget = limits.budget_tokens or budget
    return {
        "sources": [
            {
                "name": source.name,
                "found": weights[source.name],
                "gain": run.mixture.sources[source.index].gain,
                "tokens": source.tokens,
                "low": lower[source.index],
                "high": upper[source.index],
            }
            for source in mixture.sources
        ],
        "surface": None if run.surface is None else run.surface.content,
        "contradicted": list(contradicted),
        "sigmas": SIGMAS,
        "coloured": _coloured(mixture),
        "shown": [source.index for source in mixture.ranked[:ROWS]],
        "root": _tree(root),
        **_budget(budget if isinstance(budget, int) and budget > 0 and all(tokens) else None),
        "max_epochs": None if limits is None else limits.max_epochs,
        "bearable_epochs": MAXIMUM_EPOCHS,
        "groups": [] if limits is None else [_words(n, g) for n, g in limits.groups.items()],
    }


def _coloured(mixture: Mixture) -> list[dict[str, Any]]:
    """The sources with colours of their own, heaviest first."""
    return [
        {"index": source.index, "name": source.name, "colour": f"c{source.colour}"}
        for source in mixture.ranked
        if source.colour is not None
    ]


def _budget(tokens: int | None) -> dict[str, Any]:
    """The budget slider: logarithmic, from the run's own tokens (or less) to 100 trillion."""
    if tokens is None:
        return {"budget": None}
    place = math.log10(tokens)
    return {
        "budget": tokens,
        "budget_log": round(place, 2),
        "budget_low": math.floor(place),
        "budget_high": max(14, math.ceil(place)),
    }


def rows(mixture: Mixture) -> list[SourceView]:
    """The sources that get sliders, heaviest first."""
    return mixture.ranked[:ROWS]


def _constraints(given: object, run: Run) -> Constraints:
    try:
        return Constraints.model_validate(given)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        path = run.directory / "mixture.json"
        raise UserError(f"{path}: search.constraints: {reason}") from None


def _tree(node: Node) -> dict[str, Any]:
    return {
        "low": node.lower,
        "high": node.upper,
        "sources": list(node.sources),
        "groups": [_tree(group) for group in node.groups],
    }


def _words(name: str, group: Any) -> str:
    low = group.fixed if group.fixed is not None else group.min
    high = group.fixed if group.fixed is not None else group.max
    parts = [f"at least {100 * low:.3g}%"] if low is not None else []
    parts += [f"at most {100 * high:.3g}%"] if high is not None else []
    return f"{name} ({', '.join(group.sources)}) {' and '.join(parts)}"
