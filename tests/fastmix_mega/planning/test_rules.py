from __future__ import annotations

from typing import Any

import pytest

from fastmix_mega.config.sections import ParallelSection
from fastmix_mega.configuration import parse_config
from fastmix_mega.model.presets import resolve_shape
from fastmix_mega.planning.check import check
from fastmix_mega.planning.rules import as_yaml, nearest_layout, problems, valid_layouts


@pytest.mark.parametrize(
    ("parallel", "processes", "reason", "nearest"),
    [
        ({"pipeline": 2, "zero": 2}, 2, "the pipeline schedule cannot wait", "{pipeline: 2, zero:"),
        ({"tensor": 4}, 4, "cannot share model.key_value_heads (2)", "{tensor: 2, zero: 1}"),
        ({"pipeline": 4}, 4, "cannot share model.layers (2)", "{pipeline: 2, zero: 1}"),
        ({"pipeline": 2, "interleave": 2}, 2, "are the same process", "{pipeline: 2, zero: 1}"),
        ({"zero": 3}, 2, "ZeRO stage 1 or 2", "parallel: {zero: 2}"),
        ({"context": 16}, 16, "must be a multiple of 2 x context = 32", "{context: 8, zero: 1}"),
        ({"tensor": 2}, 3, "does not divide 3 process(es)", None),
    ],
)
def test_what_cannot_run_is_refused(
    settings: dict[str, Any],
    parallel: dict[str, Any],
    processes: int,
    reason: str,
    nearest: str | None,
) -> None:
    found = "\n".join(check(parse_config(settings | {"parallel": parallel}), processes).mistakes)
    assert reason in found
    assert ("the nearest layout" in found) == (nearest is not None)
    assert nearest is None or nearest in found


def test_the_nearest_layout_runs(settings: dict[str, Any]) -> None:
    config = parse_config(settings | {"parallel": {"tensor": 4, "pipeline": 4, "zero": 2}})
    shape = resolve_shape(config.model, 300)
    nearest = nearest_layout(config, shape, 8, "search")
    assert nearest is not None
    assert problems(nearest, config, shape, 8, "search") == []
    assert as_yaml(nearest) == "parallel: {tensor: 2, pipeline: 2, zero: 1}"


def test_all_valid_layouts_differ(settings: dict[str, Any]) -> None:
    config = parse_config(settings)
    found = list(valid_layouts(config, resolve_shape(config.model, 300), 4, "search"))
    assert len({as_yaml(layout) for layout in found}) == len(found)
    assert all(layout.zero < 3 for layout in found)
    assert ParallelSection(tensor=2, pipeline=2) in found
    assert all(layout.zero == 1 for layout in found if layout.pipeline > 1)
