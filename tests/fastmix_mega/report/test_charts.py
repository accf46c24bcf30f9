"""The charts' geometry: ticks, labels, thinning, paths, heat map."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmix_mega.report.charts import (
    HEAT_LEVELS,
    Axes,
    Caption,
    Scale,
    Series,
    bins,
    heat_paths,
    line_chart,
    spread_labels,
    thin,
    ticks,
    weighted_mean,
)

numbers = st.floats(-1e6, 1e6, allow_nan=False)


@given(numbers, st.floats(1e-6, 1e6), st.integers(1, 8))
def test_ticks_are_few_round_and_inside(low: float, extent: float, count: int) -> None:
    scale = Scale(low, low + extent)
    found = ticks(scale, count)
    assert len(found) <= count + 1
    assert all(-0.001 <= scale(value) <= 1.001 for value in found)
    steps = [b - a for a, b in itertools.pairwise(found)]
    assert all(step == pytest.approx(steps[0], rel=1e-3) for step in steps)


@given(st.lists(st.floats(0, 300), max_size=40))
def test_labels_never_overlap_and_keep_their_order(tops: list[float]) -> None:
    placed = spread_labels(tops, 300, 17)
    gap = min(17.0, 300 / max(1, len(tops)))
    order = sorted(range(len(tops)), key=lambda index: tops[index])
    in_order = [placed[index] for index in order]
    assert all(b - a >= gap - 0.11 for a, b in itertools.pairwise(in_order))
    assert all(gap / 2 - 0.2 <= top <= 300 - gap / 2 + 0.2 for top in placed)


def test_labels_with_room_stay_where_they_are() -> None:
    assert spread_labels([200.0, 20.0, 100.0], 300, 17) == [200.0, 20.0, 100.0]


@given(st.integers(0, 5000), st.integers(2, 200))
def test_thinning_keeps_both_ends(count: int, most: int) -> None:
    kept = thin(count, most)
    assert len(kept) <= most
    assert kept == sorted(set(kept))
    assert kept[:1] + kept[-1:] == ([0, count - 1] if count else [])


@given(st.integers(0, 5000), st.integers(1, 200))
def test_bins_hold_every_item_once(count: int, most: int) -> None:
    parts = bins(count, most)
    assert len(parts) <= most
    assert [item for part in parts for item in part] == list(range(count))


def test_weighted_mean_leaves_out_what_is_absent() -> None:
    assert weighted_mean([1.0, None, 4.0], [1, 5, 2]) == pytest.approx(3.0)
    assert weighted_mean([None, None], [1, 1]) is None


def test_a_line_is_drawn_to_scale_and_bridges_gaps() -> None:
    chart = line_chart(
        Caption(
            name="n",
            title="t",
            description="d",
        ),
        Axes(x_title="x", y_title="y", kind="number", height=106, from_zero=True),
        x=[0.0, 5.0, 10.0],
        series=[Series("a", [0.0, None, 1.0], colour=0)],
    )
    assert chart is not None
    # 6% of head room above the highest value.
    assert chart.lines[0].path == "M0.0 106.0L1000.0 6.0"
    assert chart.lines[0].trail == ""
    assert [tick.text for tick in chart.x_ticks] == ["0", "5", "10"]


def test_nothing_to_draw_is_no_chart() -> None:
    series = [Series("a", [None], colour=0)]
    assert line_chart(Caption("n", "", ""), Axes("", "", "loss"), x=[1.0], series=series) is None


def test_a_steep_start_may_leave_the_plot() -> None:
    values = [100.0, *[5.0 - n / 100 for n in range(99)]]
    series = [Series("a", values, colour=0)]
    caption = Caption("n", "", "")
    x = [float(n) for n in range(100)]
    clipped = line_chart(caption, Axes("", "", "loss", clip_start=True), x=x, series=series)
    whole = line_chart(caption, Axes("", "", "loss"), x=x, series=series)
    assert clipped is not None
    assert whole is not None
    assert clipped.clipped
    assert not whole.clipped
    heights = [float(y) for y in re.findall(r" (-?[\d.]+)", clipped.lines[0].path)]
    assert heights[0] < 0
    assert all(0 <= height <= clipped.height for height in heights[10:])


def test_heat_map_has_one_square_a_value_in_the_right_shade() -> None:
    paths = heat_paths([[5.0, -50.0, None], [0.0, 1.3, 2.5]], limit=5.0)
    assert paths == {
        -HEAT_LEVELS: "M1 0h1v1h-1z",
        0: "M0 1h1v1h-1z",
        1: "M1 1h1v1h-1z",
        2: "M2 1h1v1h-1z",
        HEAT_LEVELS: "M0 0h1v1h-1z",
    }
