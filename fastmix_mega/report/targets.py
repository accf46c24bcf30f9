"""Several targets: which source helps which of them, and how their weights moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastmix_mega.report.charts import (
    HEAT_LEVELS,
    Axes,
    Caption,
    LineChart,
    Series,
    bins,
    line_chart,
    thin,
)
from fastmix_mega.report.figures import HEAT_LIMIT, HEAT_ROWS, NOISY_POINTS, POINTS
from fastmix_mega.report.read import OuterStep, Run
from fastmix_mega.report.sources import COLOURS, Mixture, SourceView
from fastmix_mega.report.words import listing, percent, shorten, signed

CLEAR = 2.0
"""Standard errors from the mixture's average that count as clear."""


@dataclass(frozen=True)
class Cell:
    """One source's score for one target."""

    score: float
    text: str
    signal: float | None
    """Distance from the mixture's average score for the target, in standard errors."""
    tooltip: str

    @property
    def level(self) -> int:
        """The shade."""
        share = (self.signal or 0.0) / HEAT_LIMIT
        return round(HEAT_LEVELS * min(1.0, max(-1.0, share)))


@dataclass(frozen=True)
class TargetMatrix:
    """Rows are sources by weight, columns targets."""

    targets: list[str]
    shares: list[str]
    """Each target's share of the objective; empty where it is not known."""
    rows: list[tuple[SourceView, list[Cell | None]]]
    findings: list[tuple[str, str]]
    """Per target, its name and which sources help it clearly more and less than the mixture."""
    left_out: int
    averaged: bool
    """Over the last half of the search; otherwise these are the latest scores."""


def target_matrix(run: Run, mixture: Mixture) -> TargetMatrix | None:
    """None for a single target, or where targets were not measured one by one."""
    found = _measured(run, mixture)
    if found is None:
        return None
    columns = [
        _column(name, row, error, mixture)
        for name, row, error in zip(found.names, found.scores, found.errors, strict=True)
    ]
    shown = mixture.ranked[:HEAT_ROWS]
    return TargetMatrix(
        targets=found.names,
        shares=[percent(share) for share in found.shares],
        rows=[(source, [column[source.index] for column in columns]) for source in shown],
        findings=[
            (name, _sentence(column, mixture))
            for name, column in zip(found.names, columns, strict=True)
        ],
        left_out=len(mixture.sources) - len(shown),
        averaged=found.averaged,
    )


@dataclass(frozen=True)
class _Measured:
    """K targets; matrices are [K][S]."""

    names: list[str]
    shares: list[float]
    scores: list[list[float]]
    errors: list[list[float]]
    averaged: bool


def _measured(run: Run, mixture: Mixture) -> _Measured | None:
    """From the result, or from the latest outer step of a search in progress."""
    entries = run.mixture.targets if run.mixture is not None else []
    if len(entries) > 1 and all(entry.get("scores") for entry in entries):
        scores, errors = (
            [[entry.get(key, {}).get(name, 0.0) for name in run.names] for entry in entries]
            for key in ("scores", "score_stderr")
        )
        shares = [entry["share"] for entry in entries if "share" in entry]
        names = [str(entry["name"]) for entry in entries]
        known = shares if len(shares) == len(names) else []
        return _Measured(names, known, scores, errors, averaged=True)
    last = run.history[-1] if run.history and not mixture.is_training else None
    if last is None or last.target_scores is None or last.target_score_stderr is None:
        return None
    if len(last.target_loss) < 2:
        return None
    return _Measured(
        list(last.target_loss),
        last.target_weights or [],
        last.target_scores,
        last.target_score_stderr,
        averaged=False,
    )


def _column(
    target: str, scores: Sequence[float], errors: Sequence[float], mixture: Mixture
) -> list[Cell | None]:
    """[S] cells of one target; None where the source was not seen."""
    average = sum(source.weight * scores[source.index] for source in mixture.sources)
    cells: list[Cell | None] = []
    for source in mixture.sources:
        score, error = scores[source.index], errors[source.index]
        if score == 0 and error == 0:
            cells.append(None)
            continue
        signal = (score - average) / error if error > 0 else None
        tooltip = f"{source.name} for {target}: score {signed(score)}"
        if signal is not None:
            tooltip += f" ± {error:.3g}, {signed(signal)} standard errors from the average"
        cells.append(Cell(score, signed(score), signal, tooltip))
    return cells


def _sentence(column: Sequence[Cell | None], mixture: Mixture) -> str:
    signals = {
        source.name: cell.signal
        for source, cell in zip(mixture.sources, column, strict=True)
        if cell is not None and cell.signal is not None
    }
    ranked = sorted(signals, key=lambda name: -signals[name])
    above = [shorten(name, 36) for name in ranked if signals[name] > CLEAR]
    below = [shorten(name, 36) for name in reversed(ranked) if signals[name] < -CLEAR]
    parts = [f"helped most by {listing(above, 3)}"] if above else []
    parts += [f"least by {listing(below, 3)}"] if below else []
    return ", ".join(parts) or "no source clearly helps more or less than the mixture"


def target_charts(run: Run) -> dict[str, LineChart]:
    """Weights and excess losses over the search, where the weights moved."""
    rows = [row for row in run.history if row.target_weights and row.target_reference]
    if len(rows) < 2 or len(rows) < len(run.history):
        return {}
    made = {"target-weights": _weights(rows), "target-excess": _excess(rows)}
    return {name: chart for name, chart in made.items() if chart is not None}


def _weights(rows: Sequence[OuterStep]) -> LineChart | None:
    shown = [rows[index] for index in thin(len(rows), POINTS)]
    names = list(rows[0].target_loss)
    return line_chart(
        Caption(
            name="target-weights",
            title="Weight of every target",
            description="Weight of every target in the objective at each outer step.",
            note="The targets that are worst off gain weight.",
        ),
        Axes(
            x_title="outer step",
            y_title="share of the objective",
            kind="percent",
            height=220,
            from_zero=True,
        ),
        x=[float(row.outer_step) for row in shown],
        series=[
            Series(name, [(row.target_weights or [])[number] for row in shown], _colour(number))
            for number, name in enumerate(names)
        ],
    )


def _excess(rows: Sequence[OuterStep]) -> LineChart | None:
    parts = bins(len(rows), NOISY_POINTS)
    names = list(rows[0].target_loss)

    def mean(name: str, number: int, part: range) -> float:
        values = [
            rows[i].target_loss[name] - (rows[i].target_reference or [])[number] for i in part
        ]
        return sum(values) / len(part)

    return line_chart(
        Caption(
            name="target-excess",
            title="Loss above the reference",
            description="Loss of every target minus its reference at each outer step, nats per "
            "token.",
            note="What the weights follow: the target with the highest line gains most.",
        ),
        Axes(x_title="outer step", y_title="nats per token", kind="loss", height=220),
        x=[float(rows[part[-1]].outer_step) for part in parts],
        series=[
            Series(name, [mean(name, number, part) for part in parts], _colour(number))
            for number, name in enumerate(names)
        ],
    )


def _colour(number: int) -> int | None:
    return number if number < COLOURS else None
