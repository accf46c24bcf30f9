"""A plan of several phases: its mean, what is read over all of them, and where it is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastmix_mega.config.constraints import Constraints
from fastmix_mega.errors import UserError
from fastmix_mega.mixture.bigram import most_shares
from fastmix_mega.mixture.constraints.apply import ConstraintSet, Sources
from fastmix_mega.mixture.file import MixtureFile, MixtureSource, read_mixture, resolve_mixture
from fastmix_mega.mixture.phase_plan import Phase, describe_plan, plan_of


def found(web: float, warnings: tuple[str, ...] = ()) -> MixtureFile:
    sources = [
        MixtureSource(name="web", weight=web, stderr=0.1, tokens=1000, gain=1.0),
        MixtureSource(name="books", weight=1 - web, stderr=0.2, tokens=50),
    ]
    return MixtureFile(sources=sources, search={"warnings": list(warnings)})


def example() -> MixtureFile:
    phases = [
        Phase("broad", 750, found(0.8, ("it was short",)), "phase_broad"),
        Phase("anneal", 250, found(0.4), "phase_anneal"),
    ]
    return plan_of(phases, 3.1)


def test_the_plan_is_the_mean_over_the_whole_run(tmp_path: Path) -> None:
    example().write(tmp_path / "mixture.json")
    plan = read_mixture(tmp_path / "mixture.json")
    assert [source.weight for source in plan.sources] == [pytest.approx(0.7), pytest.approx(0.3)]
    assert plan.sources[1].epochs_at_budget == pytest.approx(6.0)
    assert plan.sources[0].stderr == pytest.approx(np.hypot(0.075, 0.025))
    assert [(stage.from_tokens, stage.tokens) for stage in plan.stages] == [(0, 750), (750, 250)]
    assert plan.search["budget_tokens"] == 1000
    lines = describe_plan(plan)
    assert lines[1].split() == ["web", "80.00%", "40.00%", "70.00%", "0.70"]
    assert "warning: broad: it was short" in lines
    # Other files are as they were.
    found(0.5).write(tmp_path / "one.json")
    assert '"stages"' not in (tmp_path / "one.json").read_text()
    with pytest.raises(UserError, match="a plan of 2 phases; give one of them"):
        resolve_mixture(str(tmp_path), ["web", "books"], [1, 1], "mixture")


def test_what_was_read_before_counts() -> None:
    tokens, read = np.array([1000.0, 50.0]), np.array([600.0, 150.0])
    # 8 epochs of 50 tokens, of which 3 were read before, in 500 tokens.
    assert most_shares(tokens, 500.0, read).tolist() == [1.0, 0.5]
    limits = Constraints.model_validate(
        {"budget_tokens": 500, "max_epochs": 4, "read_tokens": {"books": 150}}
    )
    given = ConstraintSet(limits, Sources(["web", "books"], [1000, 50]), "limits")
    assert given.upper.tolist() == [1.0, 0.1]
    assert given.project(np.array([0.5, 0.5])).tolist() == pytest.approx([0.9, 0.1])
    unknown = limits.model_copy(update={"read_tokens": {"book": 1}})
    with pytest.raises(UserError, match="book is no source"):
        ConstraintSet(unknown, Sources(["web", "books"], [1000, 50]), "limits")
