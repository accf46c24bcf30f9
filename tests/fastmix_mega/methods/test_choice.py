"""What a method fixes in the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastmix_mega.methods.choice import as_method

from fastmix_mega.config.schema import Config
from fastmix_mega.configuration import parse_config
from fastmix_mega.methods.cost import cost_in_proxy_runs
from fastmix_mega.model.presets import resolve_shape
from tests.tiny import tiny_settings


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    made = tiny_settings(tmp_path, tmp_path / "run")
    made["search"]["score_tokens"] = None
    return made


def of(settings: dict[str, Any], method: str) -> Config:
    return as_method(parse_config(settings | {"method": method}))


def test_the_authors_recipe_scores_all_tokens(settings: dict[str, Any]) -> None:
    assert of(settings, "fastmix").search.scored_share(conversations=False) == 0.125
    assert of(settings, "reference").search.scored_share(conversations=False) == 1
    settings["search"]["score_tokens"] = 0.5
    assert of(settings, "reference").search.scored_share(conversations=False) == 0.5


def test_the_cost_counts_what_is_scored_by_default(settings: dict[str, Any]) -> None:
    config = of(settings, "fastmix")
    shape = resolve_shape(config.model, 300)

    def scores_cost(conversations: bool) -> float:
        whole = cost_in_proxy_runs(config, shape, 5, conversations=conversations)
        settings["search"]["score_tokens"] = 1e-9
        target = cost_in_proxy_runs(of(settings, "fastmix"), shape, 5)
        return whole - target

    assert scores_cost(conversations=True) == pytest.approx(8 * scores_cost(conversations=False))
