"""The line charts and the heat map of a run, from its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fastmix_mega.report.charts import (
    Axes,
    Caption,
    LineChart,
    Series,
    bins,
    heat_paths,
    line_chart,
    thin,
    weighted_mean,
)
from fastmix_mega.report.read import Run
from fastmix_mega.report.sources import (
    COLOURS,
    Mixture,
    SourceView,
    initial_weights,
    signal_to_noise,
)
from fastmix_mega.report.words import plural

POINTS = 160
"""Points of a smooth line; more would not be seen."""
NOISY_POINTS = 60
"""Points of a noisy line, each a mean."""
HEAT_ROWS, HEAT_COLUMNS = 30, 60
HEAT_LIMIT = 5.0
"""Standard errors at which the strongest shade begins."""


def line_charts(run: Run, mixture: Mixture) -> dict[str, LineChart]:
    """The charts that the run has numbers for, by name."""
    made = {
        "trajectory": trajectory(run, mixture),
        "effective": effective_sources(run),
        "target": target_losses(run),
        "source": source_losses(run, mixture),
        "evaluation": evaluation_losses(run),
    }
    return {name: chart for name, chart in made.items() if chart is not None}


def trajectory(run: Run, mixture: Mixture) -> LineChart | None:
    """The mixture over training steps, with its start where that is known."""
    if not run.history:
        return None
    rows = [run.history[index] for index in thin(len(run.history), POINTS)]
    steps = [float(row.step) for row in rows]
    weights = [row.mixture for row in rows]
    known = all(any(row.mixture_stderr) for row in rows)
    errors: list[list[float]] = [row.mixture_stderr for row in rows] if known else []
    start = initial_weights(run)
    if start is not None:
        window = run.setting("search", "every")
        first = max(0.0, steps[0] - (window if isinstance(window, int) else 0))
        steps = [0.0, first, *steps] if first > 0 else [0.0, *steps]
        weights = [start] * (len(steps) - len(weights)) + weights
        if known:  # The start is not a measurement.
            errors = [[0.0] * len(run.names)] * (len(steps) - len(errors)) + errors
    averaged = run.history[len(run.history) // 2 :]
    # The geometric mean over the last half is the result of this method only.
    method = run.mixture.search.get("method") if run.mixture else None
    from_surface = run.search.answer_from == "surface"
    is_mean = method == "fastmix" and len(averaged) > 1 and not from_surface
    return line_chart(
        Caption(
            name="trajectory",
            title="How the answer moved" if from_surface else "How the mixture moved",
            description="Weight of every source after each outer step, over training steps.",
            note=(
                "What the evidence so far would answer; "
                "the run itself trained on its first mixture. "
                * from_surface
                + "The result is the geometric mean over the shaded half. " * is_mean
                + _band_note(run) * known
                + _grey_note(mixture)
            ),
        ),
        Axes(
            x_title="training step",
            y_title="share of tokens",
            kind="percent",
            height=340,
            from_zero=True,
        ),
        x=steps,
        series=[
            replace(
                _series(source, [weight[source.index] for weight in weights]),
                errors=[error[source.index] for error in errors] if known else None,
            )
            for source in mixture.ranked
        ],
        spans=[(averaged[0].step, averaged[-1].step, "averaged")] if is_mean else [],
    )


def effective_sources(run: Run) -> LineChart | None:
    if len(run.history) < 2:
        return None
    rows = [run.history[index] for index in thin(len(run.history), POINTS)]
    count = len(run.names)
    return line_chart(
        Caption(
            name="effective",
            title="How spread out it is",
            description="Effective number of sources, exp(entropy), after each outer step.",
            note="exp(entropy): how many equally weighted sources would be as spread out. Close to "
            "1, the mixture has collapsed.",
        ),
        Axes(
            x_title="training step",
            y_title="effective sources",
            kind="number",
            height=220,
            from_zero=True,
        ),
        x=[float(row.step) for row in rows],
        series=[Series("sources", [row.effective_sources for row in rows], colour=0)],
        reference=(float(count), f"even split: {count}"),
    )


def target_losses(run: Run) -> LineChart | None:
    parts = bins(len(run.history), NOISY_POINTS)
    # In their own order, as the evaluation sets are: the same colours then stand for the same.
    targets = list(dict.fromkeys(name for row in run.history for name in row.target_loss))
    series = []
    for number, target in enumerate(targets):
        losses = [row.target_loss.get(target) for row in run.history]
        means = [weighted_mean([losses[i] for i in part], [1.0] * len(part)) for part in parts]
        series.append(Series(target, means, colour=number if number < COLOURS else None))
    return line_chart(
        Caption(
            name="target",
            title="Loss on the target",
            description="Loss of the proxy on the target text at each outer step, nats per token.",
            note="On the few target sequences that each outer step looked at, so it is noisy."
            + _mean_note(parts, "outer step"),
        ),
        Axes(
            x_title="outer step", y_title="nats per token", kind="loss", height=220, clip_start=True
        ),
        x=[float(run.history[part[-1]].outer_step) for part in parts],
        series=series,
    )


def source_losses(run: Run, mixture: Mixture) -> LineChart | None:
    """Means over bins of logged lines, weighted by the sequences behind each."""
    parts = bins(len(run.steps), NOISY_POINTS)
    series = []
    for source in mixture.ranked:
        drawn = [line.source_count[source.index] for line in run.steps]
        fresh = [now - before for now, before in zip(drawn, [0, *drawn], strict=False)]
        losses = [line.source_loss[source.index] for line in run.steps]
        means = [weighted_mean([losses[i] for i in p], [fresh[i] for i in p]) for p in parts]
        series.append(_series(source, means))
    return line_chart(
        Caption(
            name="source",
            title="Training loss of every source",
            description="Training loss of every source over training tokens, nats per token.",
            note=f"{_grey_note(mixture)}{_mean_note(parts, 'logged line')}".strip(),
        ),
        Axes(
            x_title="training tokens",
            y_title="nats per token",
            kind="loss",
            height=340,
            clip_start=True,
        ),
        x=[float(run.steps[part[-1]].tokens) for part in parts],
        series=series,
    )


def evaluation_losses(run: Run) -> LineChart | None:
    """Held-out losses over steps; a single evaluation is left to the table."""
    if len(run.evaluations) < 2:
        return None
    sets = [name for name in run.evaluations[-1].eval if not name.endswith("/accuracy")]
    return line_chart(
        Caption(
            name="evaluation",
            title="Loss on held-out text",
            description="Loss on every evaluation set over training steps, nats per token.",
        ),
        Axes(x_title="training step", y_title="nats per token", kind="loss", height=220),
        x=[float(row.step) for row in run.evaluations],
        series=[
            Series(
                each,
                [row.eval.get(each) for row in run.evaluations],
                colour=number if number < COLOURS else None,
            )
            for number, each in enumerate(sets)
        ],
    )


def _series(source: SourceView, values: Sequence[float | None]) -> Series:
    return Series(source.name, values, source.colour, source.index)


def _band_note(run: Run) -> str:
    if run.seeds:
        return f"Lines are means over {len(run.seeds)} seeds, bands one standard error of them. "
    return "Bands: one standard error, from the scores' noise up to there. "


def _grey_note(mixture: Mixture) -> str:
    grey = len(mixture.sources) - COLOURS
    return f"In grey: the {plural(grey, 'source')} of lower weight. " if grey > 0 else ""


def _mean_note(parts: Sequence[range], what: str) -> str:
    size = len(parts[0]) if parts else 1
    return f" Each point is the mean of {plural(size, what)}." if size > 1 else ""


@dataclass(frozen=True)
class HeatMap:
    """Rows are sources by weight, columns outer steps."""

    sources: list[SourceView]
    columns: int
    paths: dict[int, str]
    first_step: int
    last_step: int
    left_out: int


def heat_map(run: Run, mixture: Mixture) -> HeatMap | None:
    """Signal-to-noise of every source's score over outer steps."""
    if len(run.history) < 2:
        return None
    rows = [run.history[index] for index in thin(len(run.history), HEAT_COLUMNS)]
    ratios = [signal_to_noise(row) for row in rows]
    shown = mixture.ranked[:HEAT_ROWS]
    return HeatMap(
        sources=shown,
        columns=len(rows),
        paths=heat_paths([[ratio[s.index] for ratio in ratios] for s in shown], HEAT_LIMIT),
        first_step=rows[0].outer_step,
        last_step=rows[-1].outer_step,
        left_out=len(mixture.sources) - len(shown),
    )
