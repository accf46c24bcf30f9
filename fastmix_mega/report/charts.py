"""Geometry of the charts: numbers in, percentages and SVG paths out. Nothing here knows HTML.

A plot's SVG is stretched to the width of the page (`preserveAspectRatio="none"`, strokes keep their
width) while its words are HTML beside it, so that text stays readable on a phone and on paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from fastmix_mega.report.words import percent, quantity

WIDTH = 1000
"""Horizontal units of a plot; vertical units are CSS pixels."""
LABEL_HEIGHT = 17
"""CSS pixels between two labels at a line's end."""
Values = Sequence[float | None]


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] to [0, 1]."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Sequence[float]) -> Scale:
        """Covers the values; a single value stands in the middle."""
        low, high = min(values), max(values)
        if high > low:
            return cls(low, high)
        room = abs(low) * 0.1 or 1.0
        return cls(low - room, high + room)

    def __call__(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)

    def percent(self, value: float) -> float:
        """Position in percent, kept inside the plot."""
        return round(100 * min(1.0, max(0.0, self(value))), 3)


def ticks(scale: Scale, count: int) -> list[float]:
    """At most about `count` round values inside the scale."""
    rough = (scale.high - scale.low) / max(1, count)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= rough * (1 - 1e-9))
    first = math.ceil(scale.low / step - 1e-9)
    last = math.floor(scale.high / step + 1e-9)
    return [round(n * step, 12) + 0.0 for n in range(first, last + 1)]


@dataclass(frozen=True)
class Tick:
    position: float
    """In percent."""
    text: str


@dataclass(frozen=True)
class Series:
    """A line to draw. `colour` None is the quiet grey of the many; `source` links charts."""

    name: str
    values: Values
    colour: int | None = None
    source: int | None = None
    errors: Values | None = None
    """Standard errors of the values, drawn as a band."""


@dataclass(frozen=True)
class Line:
    series: Series
    path: str
    end: str
    """A dot at the last point, as a path."""
    trail: str
    """From the last point to the right edge, where the label is; empty if they meet."""
    label: str
    top: float
    """Of the last point, in CSS pixels."""
    label_top: float
    band: str = ""
    """One standard error on either side of a coloured line, as a path."""


@dataclass(frozen=True)
class Span:
    """A shaded part of the x axis, in percent."""

    left: float
    width: float
    text: str


@dataclass(frozen=True)
class LineChart:
    name: str
    title: str
    description: str
    note: str
    kind: str
    height: int
    x_title: str
    y_title: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    quiet: str
    """One path for all grey lines."""
    lines: list[Line]
    x: list[float]
    x_range: tuple[float, float]
    series: list[Series]
    spans: list[Span] = field(default_factory=list)
    reference: Tick | None = None
    clipped: bool = False


@dataclass(frozen=True)
class Caption:
    """What stands above and below a chart."""

    name: str
    """By which the page knows it."""
    title: str
    description: str
    """For readers who do not see it."""
    note: str = ""


@dataclass(frozen=True)
class Axes:
    """What the two directions of a chart mean."""

    x_title: str
    y_title: str
    kind: str
    """Of the values: `percent`, `loss` or `number`."""
    height: int = 280
    """In CSS pixels."""
    from_zero: bool = False
    """The y axis starts at 0."""
    clip_start: bool = False
    """Let steep lines leave the plot at the top during the first twentieth of x."""


def line_chart(
    caption: Caption,
    axes: Axes,
    x: Sequence[float],
    series: Sequence[Series],
    spans: Sequence[tuple[float, float, str]] = (),
    reference: tuple[float, str] | None = None,
) -> LineChart | None:
    """Lay out lines over a common x; None if there is nothing to draw.

    Args:
        caption: of the chart.
        axes: of the chart.
        x: [N] positions.
        series: with [N] values each, None where nothing was measured.
        spans: (from, to, words) on the x axis to shade.
        reference: a horizontal line and its words.
    """
    series = [each for each in series if any(value is not None for value in each.values)]
    if not series or not x:
        return None
    x_scale = Scale.around([*x, *(value for span in spans for value in span[:2])])
    points = [
        (a, v) for each in series for a, v in zip(x, each.values, strict=True) if v is not None
    ]
    # On a short line the start is no small part.
    shown = _shown_values(points, x_scale, axes.clip_start and len(x) >= 10)
    head_room = 0.1 if spans else 0.06
    y_scale = _y_scale([*shown, *([reference[0]] if reference else [])], head_room, axes.from_zero)
    coloured = [each for each in series if each.colour is not None]
    return LineChart(
        name=caption.name,
        title=caption.title,
        description=caption.description,
        note=caption.note,
        kind=axes.kind,
        height=axes.height,
        x_title=axes.x_title,
        y_title=axes.y_title,
        x_ticks=_whole_ticks(x_scale),
        y_ticks=[
            Tick(100 - y_scale.percent(v), tick_text(axes.kind, v))
            for v in ticks(y_scale, axes.height // 40)
        ],
        quiet="".join(
            _draw(each, x, x_scale, y_scale, axes.height)[0]
            for each in series
            if each.colour is None
        ),
        lines=_labelled(coloured, x, x_scale, y_scale, axes),
        x=list(x),
        x_range=(x_scale.low, x_scale.high),
        series=list(series),
        spans=[
            Span(x_scale.percent(a), x_scale.percent(b) - x_scale.percent(a), text)
            for a, b, text in spans
        ],
        reference=Tick(100 - y_scale.percent(reference[0]), reference[1]) if reference else None,
        clipped=any(value > y_scale.high for _, value in points),
    )


def _shown_values(
    points: Sequence[tuple[float, float]], x_scale: Scale, may_clip: bool
) -> list[float]:
    """Those that the y axis must cover: all, or without the first twentieth of x."""
    settled = [value for a, value in points if x_scale(a) >= 0.05]
    clips = may_clip and len(settled) >= len(points) / 2
    return settled if clips else [value for _, value in points]


def _y_scale(values: Sequence[float], head_room: float, from_zero: bool) -> Scale:
    """Covers the values with a share of their range to spare, below too unless it starts at 0."""
    tight = Scale.around([*values, *([0.0] if from_zero else [])])
    room = head_room * (tight.high - tight.low)
    return Scale(tight.low if from_zero else tight.low - room, tight.high + room)


def _labelled(
    series: Sequence[Series], x: Sequence[float], x_scale: Scale, y_scale: Scale, axes: Axes
) -> list[Line]:
    """Lines with a label at the end of each, so that no two labels overlap."""
    placed = [(each, *_draw(each, x, x_scale, y_scale, axes.height)) for each in series]
    tops = spread_labels([item[4] for item in placed], axes.height, LABEL_HEIGHT)
    return [
        Line(
            each,
            path=path,
            end=end,
            trail=trail,
            label=value_text(axes.kind, _last(each.values)),
            top=top,
            label_top=label_top,
            band=_band(each, x, x_scale, y_scale, axes.height),
        )
        for (each, path, end, trail, top), label_top in zip(placed, tops, strict=True)
    ]


def _whole_ticks(scale: Scale) -> list[Tick]:
    """Steps and tokens are whole numbers, however short the run."""
    return [Tick(scale.percent(v), quantity(v)) for v in ticks(scale, 4) if v == int(v)]


def tick_text(kind: str, value: float) -> str:
    """Round values at an axis, with a real minus."""
    text = f"{100 * value:g}%" if kind == "percent" else f"{value:g}"
    return text.replace("-", "−")


def value_text(kind: str, value: float) -> str:
    if kind == "percent":
        return percent(value)
    return f"{value:.2f}" if kind == "loss" else f"{value:.3g}"


def _draw(
    series: Series, x: Sequence[float], x_scale: Scale, y_scale: Scale, height: int
) -> tuple[str, str, str, float]:
    """A path, a dot at its end, what is missing to the right edge, and the end's CSS pixels."""
    points = [
        (WIDTH * x_scale(a), height * (1 - y_scale(value)))
        for a, value in zip(x, series.values, strict=True)
        if value is not None
    ]
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
    last_x, last_y = points[-1]
    end = f"M{last_x:.1f} {last_y:.1f}"
    trail = f"{end}H{WIDTH}" if last_x < WIDTH - 1 else ""
    return path, f"{end}h.01", trail, min(float(height), max(0.0, last_y))


def _band(series: Series, x: Sequence[float], x_scale: Scale, y_scale: Scale, height: int) -> str:
    """Along the upper edge and back along the lower one, kept inside the plot."""
    if series.errors is None:
        return ""
    upper: list[str] = []
    lower: list[str] = []
    for a, value, error in zip(x, series.values, series.errors, strict=True):
        if value is not None and error is not None:
            for edge, side in ((upper, 1), (lower, -1)):
                place = min(1.0, max(0.0, y_scale(value + side * error)))
                edge.append(f"{WIDTH * x_scale(a):.1f} {height * (1 - place):.1f}")
    return f"M{'L'.join([*upper, *reversed(lower)])}Z" if len(upper) > 1 else ""


def _last(values: Values) -> float:
    return next(value for value in reversed(values) if value is not None)


def spread_labels(tops: Sequence[float], height: float, gap: float) -> list[float]:
    """Move labels apart to at least `gap`, as little as possible, and keep them inside."""
    if not tops:
        return []
    gap = min(gap, height / len(tops))
    order = sorted(range(len(tops)), key=lambda index: tops[index])
    placed: list[float] = []
    for index in order:
        lowest = placed[-1] + gap if placed else gap / 2
        placed.append(max(tops[index], lowest))
    limit = height - gap / 2
    for position in range(len(placed) - 1, -1, -1):
        placed[position] = min(placed[position], limit)
        limit = placed[position] - gap
    result = [0.0] * len(tops)
    for index, top in zip(order, placed, strict=True):
        result[index] = round(top, 1)
    return result


def thin(count: int, most: int) -> list[int]:
    """At most `most` indices of `count`, evenly spread, with the first and the last."""
    if count <= most:
        return list(range(count))
    return sorted({round(n * (count - 1) / (most - 1)) for n in range(most)})


def bins(count: int, most: int) -> list[range]:
    """`count` items in at most `most` consecutive runs of one length (the last may be shorter)."""
    size = max(1, -(-count // most))
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def weighted_mean(values: Values, weights: Sequence[float]) -> float | None:
    """Mean of the values that exist; None if there are none."""
    pairs = [(v, w) for v, w in zip(values, weights, strict=True) if v is not None and w > 0]
    total = sum(w for _, w in pairs)
    return sum(v * w for v, w in pairs) / total if total else None


HEAT_LEVELS = 4
"""Shades on either side of the middle one."""


def heat_paths(rows: Sequence[Values], limit: float) -> dict[int, str]:
    """Unit squares of a heat map, one path a shade from -HEAT_LEVELS to HEAT_LEVELS.

    Args:
        rows: values, None where nothing was measured (left empty).
        limit: the value at which the strongest shade begins.
    """
    paths: dict[int, list[str]] = {}
    for top, row in enumerate(rows):
        for left, value in enumerate(row):
            if value is not None:
                level = round(HEAT_LEVELS * min(1.0, max(-1.0, value / limit)))
                paths.setdefault(level, []).append(f"M{left} {top}h1v1h-1z")
    return {level: "".join(parts) for level, parts in sorted(paths.items())}
