"""Constraints as a user writes them, on named sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmix_mega.config.constraints import Constraints, read_constraints
from fastmix_mega.errors import UserError
from fastmix_mega.mixture.constraints.apply import Constrained, ConstraintSet, Sources

SOURCES = Sources(("web", "code", "books", "wiki"), (8_000, 4_000, 1_000, 500))
FOUND = np.array([0.4, 0.3, 0.2, 0.1])


def apply(content: dict[str, Any], before: np.ndarray = FOUND) -> Constrained:
    constraints = Constraints.model_validate(content)
    return ConstraintSet(constraints, SOURCES, "limits.yaml").apply(before)


def test_epochs_at_the_budget_are_capped() -> None:
    """By hand: 4 x 500 of 40,000 tokens is 0.05, 4 x 1,000 is 0.1; the rest keeps 4 : 3."""
    result = apply({"budget_tokens": 40_000, "max_epochs": 4})
    assert result.weights == pytest.approx([0.85 * 4 / 7, 0.85 * 3 / 7, 0.1, 0.05], abs=1e-12)
    assert result.epochs == pytest.approx([17 / 7, 25.5 / 7, 4, 4])
    assert any("wiki at most 0.05 (4 epochs of its 500 tokens" in why for why in result.holding)


def test_a_source_may_have_its_own_epochs() -> None:
    content = {"budget_tokens": 4_000, "max_epochs": 0.4, "sources": {"wiki": {"max_epochs": 2}}}
    assert apply(content).weights == pytest.approx([0.45, 0.3375, 0.1, 0.1125])


def test_fixed_shares_and_groups_within_groups() -> None:
    result = apply(
        {
            "sources": {"wiki": {"fixed": 0.2}},
            "groups": {
                "prose": {"sources": ["web", "books", "wiki"], "max": 0.6},
                "small": {"sources": ["books", "wiki"], "min": 0.35},
            },
        }
    )
    assert result.weights == pytest.approx([0.25, 0.4, 0.15, 0.2])
    assert "group prose at its limit of 0.6" in result.holding


def test_prior() -> None:
    content = {"prior": {"mixture": "proportional", "strength": 1}}
    assert apply(content).weights == pytest.approx(np.array([16, 8, 2, 1]) / 27)
    half = apply({"prior": {"mixture": "uniform", "strength": 0.5}}).weights
    assert half == pytest.approx(np.sqrt(FOUND) / np.sqrt(FOUND).sum())


def test_cost_to_first_order() -> None:
    result = apply({"sources": {"web": {"max": 0.3}}})
    moved = FOUND - result.weights
    assert result.predicted_cost([1.0, 0.0, 0.0, 0.0]) == pytest.approx(0.1)
    assert result.predicted_cost([2.0, 1.0, 0.5, 0.1]) == pytest.approx(
        moved @ [2.0, 1.0, 0.5, 0.1]
    )
    assert result.predicted_cost([1.0, None, 0.0, 0.0]) is None
    assert apply({}).distance < 1e-15


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"sources": {"wbe": {"max": 0.1}}}, "wbe is no source of this mixture"),
        (
            {"sources": {"web": {"min": 0.7}, "code": {"min": 0.5}}},
            "web at least 0.7; code at least 0.5. Together that is at least 1.2",
        ),
        (
            {"sources": {name: {"max": 0.2} for name in SOURCES.names}},
            "Together that is at most 0.8, and the mixture needs 1",
        ),
        (
            {"budget_tokens": 100_000, "max_epochs": 4},
            r"at most 0.54, and the mixture needs 1.*lower budget_tokens \(to about 54,000\)",
        ),
        (
            {"budget_tokens": 100_000, "max_epochs": 4, "sources": {"wiki": {"min": 0.1}}},
            r"wiki at least 0.1 contradicts wiki at most 0.02 \(4 epochs of its 500 tokens",
        ),
        (
            {
                "sources": {"books": {"min": 0.4}, "wiki": {"fixed": 0.2}},
                "groups": {"small": {"sources": ["books", "wiki"], "max": 0.5}},
            },
            "books at least 0.4; wiki fixed at 0.2.*group small holds at most 0.5",
        ),
        ({"prior": {"mixture": {"web": 1.0}, "strength": 1}}, "no weight for books, code, wiki"),
    ],
)
def test_conflicts_are_named(content: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        apply(content)


def test_weights_of_zero_are_named_where_they_are_the_reason() -> None:
    with pytest.raises(UserError, match="web has weight 0 and stays there"):
        apply(
            {"sources": {name: {"max": 0.3} for name in SOURCES.names}},
            np.array([0, 0.5, 0.25, 0.25]),
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_epochs: 4", "max_epochs needs budget_tokens"),
        ("max_epoch: 4", "unknown key; did you mean 'max_epochs'"),
        ("sources: {web: {mx: 0.1}}", "sources.web.mx: unknown key; did you mean 'max'"),
        ("sources: {web: {min: 0.5, max: 0.1}}", "is above max"),
        ("sources: {web: {fixed: 0.5, max: 0.1}}", "drop `min` and `max`"),
        ("groups: {a: {sources: [x, y]}, b: {sources: [y, z]}}", "overlap"),
        ("- web", "must hold `key: value` lines"),
        ("sources: [", "is not valid YAML"),
    ],
)
def test_a_file_with_mistakes(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "limits.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"limits\.yaml") as error:
        read_constraints(path)
    assert message in str(error.value)


def test_a_budget_on_the_command_line_wins(tmp_path: Path) -> None:
    path = tmp_path / "limits.yaml"
    path.write_text("max_epochs: 4\nbudget_tokens: 100")
    assert read_constraints(path, 500).budget_tokens == 500
    with pytest.raises(UserError, match="cannot read the constraints"):
        read_constraints(tmp_path / "none.yaml")
