"""The report's sentences: headline, confidence, key figures, warnings, facts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastmix_mega.mixture.simplex import effective_sources
from fastmix_mega.report.read import Run
from fastmix_mega.report.run_cost import machine_hours
from fastmix_mega.report.sources import MAXIMUM_EPOCHS, Mixture, SourceView, told_apart
from fastmix_mega.report.words import duration, listing, percent, plural, quantity, shorten


@dataclass(frozen=True)
class KeyFigure:
    label: str
    value: str
    detail: str


def headline(run: Run, mixture: Mixture | None) -> str:
    if mixture is None:
        return "Run in progress: nothing to show yet"
    if run.seeds and run.mixture is not None and run.mixture.search.get("confident") is False:
        return f"The {len(run.seeds)} seeds disagree: do not act on these weights"
    above, below, _ = told_apart(mixture)
    if mixture.final and not mixture.is_training and mixture.has_errors and not above + below:
        return f"No clear preference among the {plural(len(mixture.sources), 'source')}"
    start = "Train" if mixture.final else "Search in progress; so far: train"
    if mixture.is_training:
        start = "Trained" if mixture.final else "Training in progress"
    if all(abs(each.weight - mixture.uniform) < 1e-6 for each in mixture.sources):
        return f"{start} evenly on {plural(len(mixture.sources), 'source')}"
    leaders = mixture.leaders
    share = sum(source.weight for source in leaders)
    mostly = "mostly on" if share >= 0.5 else "most on"
    if len(leaders) == len(mixture.sources) or (mixture.is_training and not mixture.final):
        mostly = "on"
    shares = [f"{shorten(each.name, 30)} ({percent(each.weight)})" for each in leaders]
    sentence = f"{start} {mostly} {listing(shares)}"
    least = mixture.ranked[-1]
    if least not in leaders and least.weight < 0.25 * mixture.uniform:
        share_of_least = percent(least.weight)
        little = "less than " if "<" in share_of_least else "only "
        sentence += f"; {little}{share_of_least.lstrip('<')} on {shorten(least.name, 30)}"
    return sentence


def lead(run: Run, mixture: Mixture | None) -> str:
    """How the mixture came about, in one or two sentences."""
    last_step = run.steps[-1].step if run.steps else 0
    planned = run.setting("train", "steps")
    if run.mixture is None:
        done = f"step {last_step:,} of {planned:,}" if isinstance(planned, int) else "its start"
        updates = plural(len(run.history), "outer step")
        return f"This run has no result yet. It was at {done} ({updates}) when this page was made."
    search = run.mixture.search
    tokens = search.get("train_tokens")
    budget = f"{search.get('steps', last_step):,} steps"
    budget += f" ({quantity(tokens)} tokens)" if tokens else ""
    if mixture is not None and mixture.is_training:
        return f"A training run of {budget} with {_fixed_mixture(run)}; nothing was searched."
    targets = [str(target.get("name")) for target in run.mixture.targets]
    sentence = "Found"
    if targets:
        sentence += f" for the {'target' if len(targets) == 1 else 'targets'} {listing(targets)}"
    if not tokens:
        return f"{sentence} without training a model (method: {search.get('method')})."
    runs = search.get("runs")
    if search.get("objective") == "minimax":
        sentence += ", of which the worst counts most,"
    cost = search.get("cost_in_proxy_runs")
    if run.seeds:
        given = [str(seed) for seed in search.get("seeds") or []]
        sentence += f" with {len(run.seeds)} proxy runs (seeds {listing(given)}) of {budget} each"
    else:
        count = "one proxy run" if runs is None else plural(runs, "proxy run")
        sentence += f" with {count} of {budget}"
    reuse = search.get("reuse")
    if isinstance(reuse, dict) and reuse.get("kept"):
        kept = plural(len(reuse["kept"]), "source")
        sentence += f"; {kept} kept the ratios of an earlier mixture"
    if not cost:
        return f"{sentence}."
    return f"{sentence}. That cost as much as {cost:.2f} plain training runs of the proxy."


def _fixed_mixture(run: Run) -> str:
    """What a training run drew from: one mixture, or one a stage."""
    stages = [each for each in run.setting("stages") or [] if isinstance(each, dict)]
    if not stages:
        return "a fixed mixture"
    shown = [
        f"{shorten(str(each.get('name')), 30)} from {quantity(each.get('from_tokens') or 0)} tokens"
        for each in stages
    ]
    return (
        f"{len(stages) + 1} mixtures one after the other (after the first: {listing(shown)}), of "
        "which this page shows the mean over the run"
    )


def short_names(sources: Sequence[SourceView]) -> list[str]:
    return [shorten(source.name, 36) for source in sources]


def confidence(run: Run, mixture: Mixture | None) -> list[str]:
    """Which differences from an even split are real, by two standard errors."""
    if mixture is None or mixture.is_training or not mixture.final:
        return []
    if not mixture.has_errors:
        return ["This method gives no standard errors: the weights may be off by any amount."]
    above, below, unclear = told_apart(mixture)
    parts = (
        ("Clearly above it", above),
        ("clearly below", below[::-1]),
        ("not told apart", unclear),
    )
    found = [f"{words}: {listing(short_names(group))}" for words, group in parts if group]
    findings = "; ".join(found)
    holds = (
        "They hold the noise of this run's measurements, and not what another seed would have "
        "found."
    )
    if run.search.answer_from == "surface":
        holds = (
            "They are the spread of the answers that the evidence leaves open; what another seed "
            "would have seen is not in them."
        )
    if run.seeds and run.mixture is not None:
        agreement = run.mixture.search.get("agreement")
        holds = f"They are those of the mean over {len(run.seeds)} seeds"
        if isinstance(agreement, float):
            holds += f", whose orders of the sources agree to a rank correlation of {agreement:.2f}"
        holds += "."
    return [
        f"An even share would be {100 * mixture.uniform:.3g}%.",
        f"{findings[0].upper()}{findings[1:]}.",
        f"“Clearly” means by more than two standard errors. {holds}",
    ]


def key_figures(run: Run, mixture: Mixture | None) -> list[KeyFigure]:
    figures = []
    search = run.mixture.search if run.mixture else {}
    searched = mixture is not None and not mixture.is_training
    cost = search.get("cost_in_proxy_runs")
    if cost and searched:
        runs = search.get("runs")
        detail = f"{plural(search.get('outer_steps', len(run.history)), 'outer step')}"
        seconds = sum(row.seconds for row in run.history)
        detail += f", {duration(seconds)} in all"
        hours = machine_hours(run)
        if hours is not None:
            detail += f"; the whole: {hours[0]}"
        if runs is not None:
            detail = "every run of the swarm, and its evaluation"
        figures.append(KeyFigure("Cost", f"{cost:.2f} proxy runs", detail))
    better = run.search.probability_better
    if searched and better is not None:
        figures.append(
            KeyFigure(
                "Better than its start", f"{better:.0%}", "probability by this run's evidence"
            )
        )
    if mixture is not None:
        import numpy as np

        spread = effective_sources(np.array([source.weight for source in mixture.sources]))
        figures.append(
            KeyFigure(
                "Spread",
                f"{spread:.3g} of {len(mixture.sources)}",
                "effective sources: how many equal shares would be as spread out",
            )
        )
        limits = [(source.lasts, source.name) for source in mixture.sources if source.lasts]
        if limits:
            tokens, name = min(limits)
            figures.append(
                KeyFigure(
                    "Data lasts for",
                    f"{quantity(tokens)} tokens",
                    f"then {shorten(name, 30)} has been read {MAXIMUM_EPOCHS} times",
                )
            )
    if len(run.history) > 1 and run.history[0].target_loss:
        first, last = _mean_losses(run)
        figures.append(
            KeyFigure("Target loss", f"{last:.3f}", f"nats per token, from {first:.3f} at first")
        )
    elif run.steps:
        line = run.steps[-1]
        figures.append(
            KeyFigure("Training loss", f"{line.loss:.3f}", f"nats per token at step {line.step:,}")
        )
    return figures


def _mean_losses(run: Run) -> tuple[float, float]:
    """Weighted over the targets: where each was first looked at, and where last.

    An outer step may look at one target alone.
    """
    weights = {str(t.get("name")): float(t.get("weight", 1)) for t in _targets(run)}
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    for row in run.history:
        first = row.target_loss | first
        last |= row.target_loss
    total = sum(weights.get(name, 1.0) for name in last)
    both = [sum(weights.get(name, 1.0) * losses[name] for name in last) for losses in (first, last)]
    return both[0] / total, both[1] / total


def _targets(run: Run) -> Sequence[dict[str, Any]]:
    given = run.mixture.targets if run.mixture else run.setting("targets")
    return given if isinstance(given, list) else []


def warnings(run: Run, mixture: Mixture | None) -> list[str]:
    """The search's own warnings, then what the numbers in the folder show."""
    found = (
        [str(text) for text in (run.mixture.search.get("warnings") or [])] if run.mixture else []
    )
    if mixture is None or not mixture.final:
        return found
    repeated = [s for s in mixture.ranked if s.epochs is not None and s.epochs > MAXIMUM_EPOCHS]
    if repeated:
        shown = [f"{shorten(source.name, 36)} ({source.epochs:.3g} times)" for source in repeated]
        found.append(
            f"Already within this run's own budget, some sources are read more than "
            f"{MAXIMUM_EPOCHS} times: {listing(shown)}. Weights found on repeated text often do "
            "not carry over to a larger run; get more of it or use a smaller proxy budget."
        )
    if not mixture.is_training:
        found += _unclear_leaders(mixture)
        found += _still_moving(run, mixture)
        found += _never_scored(run)
    return found


def _unclear_leaders(mixture: Mixture) -> list[str]:
    above, below, unclear = told_apart(mixture)
    leaders = short_names([source for source in mixture.leaders if source in unclear])
    if not mixture.has_errors or not leaders or not above + below:
        return []
    return [
        f"By two standard errors, this run does not tell {listing(leaders)} apart from an even "
        "share: take the order of the leading sources with care, or search for more steps."
    ]


def _still_moving(run: Run, mixture: Mixture) -> list[str]:
    """Compares the last two quarters of the trajectory."""
    count = len(run.history)
    if count < 8:
        return []
    third, fourth = run.history[count // 2 : 3 * count // 4], run.history[3 * count // 4 :]
    moving = []
    for source in mixture.ranked:
        before = sum(row.mixture[source.index] for row in third) / len(third)
        after = sum(row.mixture[source.index] for row in fourth) / len(fourth)
        if abs(after - before) > max(0.03, 2 * (source.stderr or 0)):
            moving.append(f"{shorten(source.name, 36)} ({percent(before)} to {percent(after)})")
    if not moving:
        return []
    return [
        "The mixture was still moving in the last quarter of the search: "
        f"{listing(moving)}. A longer search may end with other weights."
    ]


def _never_scored(run: Run) -> list[str]:
    if not run.history:
        return []
    counts = [sum(row.counts[index] for row in run.history) for index in range(len(run.names))]
    unseen = [
        shorten(name, 36) for name, count in zip(run.names, counts, strict=True) if count == 0
    ]
    if not unseen:
        return []
    return [
        f"Never scored, since no sequence was drawn from it in any window: {listing(unseen)}. "
        "Search for more steps, with larger batches, or with more exploration."
    ]


def facts(run: Run) -> list[tuple[str, str]]:
    """Label and value pairs that identify the run."""
    search = run.mixture.search if run.mixture else {}
    versions = run.mixture.versions if run.mixture else {}
    tokenizer = run.mixture.tokenizer if run.mixture else {}
    layout = search.get("layout") or {}
    speeds = sorted(line.tokens_per_second for line in run.steps if line.tokens_per_second)
    model = run.setting("model") or {}
    trained = search.get("method") == "fixed"
    rows = [
        ("Run folder", run.directory.resolve().name),
        ("Method", search.get("method") or run.setting("method")),
        ("Model", model.get("preset")),
        ("Seed", search.get("seed", run.setting("seed")) if not run.seeds else None),
        ("Seeds", ", ".join(str(seed) for seed in search.get("seeds") or [])),
        ("Steps", _grouped(search.get("steps", run.setting("train", "steps")))),
        ("Tokens", _grouped(search.get("train_tokens"))),
        ("Outer steps", None if trained else search.get("outer_steps", len(run.history))),
        ("Cost, in proxy runs", None if trained else search.get("cost_in_proxy_runs")),
        ("Cost, in machine time", " = ".join(machine_hours(run) or ())),
        ("Cost, in old searches", (search.get("reuse") or {}).get("cost_in_old_searches")),
        ("Tokens per second", _grouped(round(speeds[len(speeds) // 2])) if speeds else None),
        ("Processes", search.get("world_size")),
        ("Restarts after failures", (run.steps[-1].restarts or None) if run.steps else None),
        ("Changes of layout", (run.steps[-1].layout_changes or None) if run.steps else None),
        ("Layout", ", ".join(f"{key} {value}" for key, value in layout.items())),
        ("Targets", ", ".join(str(target.get("name")) for target in _targets(run))),
        ("Tokenizer", _tokenizer(tokenizer)),
        ("Data", _data(run)),
        ("Configuration", _short(search.get("config_sha256"))),
        ("Code", _short(search.get("code_sha256"))),
        ("Versions", ", ".join(f"{name} {number}" for name, number in versions.items())),
    ]
    return [(label, str(value)) for label, value in rows if value not in (None, "")]


def _data(run: Run) -> str | None:
    """One digest over those of all sources' files; None if one is not known."""
    files = run.mixture.sources if run.mixture else []
    if not files or any(source.data_sha256 is None for source in files):
        return None
    lines = [f"{source.name} {' '.join(source.data_sha256 or [])}\n" for source in files]
    return _short(hashlib.sha256("".join(lines).encode("utf-8", "replace")).hexdigest())


def _grouped(value: object) -> str | None:
    return f"{value:,}" if isinstance(value, int) else None


def _short(digest: object) -> str | None:
    return f"SHA-256 {str(digest)[:12]}" if digest else None


def _tokenizer(tokenizer: dict[str, object]) -> str | None:
    size, digest = tokenizer.get("vocab_size"), _short(tokenizer.get("sha256"))
    parts = [f"{size:,} pieces" if isinstance(size, int) else None, digest]
    return ", ".join(part for part in parts if part) or None
