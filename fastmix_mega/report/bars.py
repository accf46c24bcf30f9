"""The charts with one row a source: the mixture's bars and the latest scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastmix_mega.report.charts import Scale, Tick, tick_text, ticks
from fastmix_mega.report.read import Run
from fastmix_mega.report.sources import Mixture, SourceView, mixture_average
from fastmix_mega.report.words import exact_percent, percent, signed

ROWS = 20
"""Rows in sight; the others are folded away."""


@dataclass(frozen=True)
class Row:
    """Positions in percent of the track."""

    source: SourceView
    value: float
    text: str
    tooltip: str
    low: float | None = None
    """One standard error below the value."""
    high: float | None = None
    mark: float | None = None
    """A second value to compare with."""
    dots: Sequence[float] = ()
    """The seeds' own values."""


@dataclass(frozen=True)
class RowChart:
    rows: list[Row]
    folded: list[Row]
    folded_text: str
    ticks: list[Tick]
    line: float
    """Where the vertical line through all rows stands, in percent."""
    zero: float


def mixture_bars(run: Run, mixture: Mixture) -> RowChart:
    """Weights with one standard error, against an even share and the tokens' shares."""
    seeds = [each.mixture for each in run.seeds if each.mixture is not None]
    reach = [source.weight + (source.stderr or 0) for source in mixture.sources]
    shares = [source.proportional or 0 for source in mixture.sources]
    own = [[seed.sources[source.index].weight for seed in seeds] for source in mixture.sources]
    most = max((weight for weights in own for weight in weights), default=0.0)
    scale = Scale(0.0, 1.04 * max(*reach, *shares, mixture.uniform, most))
    rows = []
    for source in mixture.ranked:
        low, high = _errors(scale, source.weight, source.stderr)
        mark = source.proportional
        rows.append(
            Row(
                source=source,
                value=scale.percent(source.weight),
                text=percent(source.weight),
                tooltip=_mixture_tooltip(source),
                low=low,
                high=high,
                mark=None if mark is None else scale.percent(mark),
                dots=[scale.percent(weight) for weight in own[source.index]],
            )
        )
    rest = sum(source.weight for source in mixture.ranked[ROWS:])
    return RowChart(
        rows=rows[:ROWS],
        folded=rows[ROWS:],
        folded_text=f"{len(rows) - ROWS} more sources, together {percent(rest)}",
        ticks=_ticks(scale, "percent"),
        line=scale.percent(mixture.uniform),
        zero=0.0,
    )


def _mixture_tooltip(source: SourceView) -> str:
    text = f"{source.name}: {exact_percent(source.weight)}"
    if source.stderr is not None and source.interval is not None:
        low, high = (exact_percent(end) for end in source.interval)
        text += f" ± {exact_percent(source.stderr)}, 95% interval {low} to {high}"
    if source.proportional is not None:
        text += f"; {exact_percent(source.proportional)} of all tokens"
    return text


def score_rows(run: Run, mixture: Mixture) -> RowChart | None:
    """The latest scores with one standard error, against the mixture's average."""
    scored = [source for source in mixture.sources if source.score is not None]
    if not scored:
        return None
    average = mixture_average(run.history[-1])
    scored.sort(key=lambda source: -(source.score or 0))
    ends = [0.0, average]
    for source in scored:
        assert source.score is not None
        error = source.score_stderr or 0
        ends += [source.score - error, source.score + error]
    tight = Scale.around(ends)
    room = 0.03 * (tight.high - tight.low)
    scale = Scale(tight.low - room, tight.high + room)
    rows = []
    for source in scored:
        assert source.score is not None
        low, high = _errors(scale, source.score, source.score_stderr)
        error_text = f" ± {signed(source.score_stderr).lstrip('+')}" if source.score_stderr else ""
        ratio = source.signal_to_noise
        rows.append(
            Row(
                source=source,
                value=scale.percent(source.score),
                text=signed(source.score),
                tooltip=f"{source.name}: {signed(source.score)}{error_text}"
                + (f"; {signed(ratio)} standard errors from the average" if ratio else ""),
                low=low,
                high=high,
            )
        )
    return RowChart(
        rows=rows[:ROWS],
        folded=rows[ROWS:],
        folded_text=f"{len(rows) - ROWS} more sources, with lower scores",
        ticks=_ticks(scale, "number"),
        line=scale.percent(average),
        zero=scale.percent(0.0),
    )


def _errors(scale: Scale, value: float, error: float | None) -> tuple[float | None, float | None]:
    if error is None:
        return None, None
    return scale.percent(value - error), scale.percent(value + error)


def _ticks(scale: Scale, kind: str) -> list[Tick]:
    values: Sequence[float] = ticks(scale, 4)
    return [Tick(scale.percent(value), tick_text(kind, value)) for value in values]
