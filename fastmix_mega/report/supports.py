"""One sentence an exhibit: what it says for the headline, or that it says nothing for it."""

from __future__ import annotations

from fastmix_mega.report.read import Run
from fastmix_mega.report.sources import Mixture, SourceView, mixture_average, signal_to_noise
from fastmix_mega.report.words import listing, percent, shorten

EXHIBITS = ("bars", "trajectory", "target", "effective", "source", "evaluation", "scores", "heat")


def supports(run: Run, mixture: Mixture | None) -> dict[str, str]:
    """By exhibit; empty where there is no finished search."""
    found = dict.fromkeys(EXHIBITS, "")
    if mixture is None or mixture.is_training or not mixture.final or run.seeds:
        return found
    return found | {
        "bars": _bars(mixture),
        "trajectory": _trajectory(run),
        "target": _target(run),
        "effective": "A mixture may lean on a few sources, and it has not collapsed onto one.",
        "source": "A check of the data rather than evidence: a source far above all others may be "
        "noise or another language.",
        "evaluation": "It says that the proxy learned, and not which mixture is better: for that "
        "see the predictions, or retrain.",
        "scores": _scores(run, mixture),
        "heat": _heat(run, mixture),
    }


def _bars(mixture: Mixture) -> str:
    leaders, share = mixture.leaders, sum(source.weight for source in mixture.leaders)
    text = f"The headline names the top {len(leaders)}, which hold {percent(share)} together"
    even = [s for s in leaders if s.stderr is not None and s.weight - s.stderr < mixture.uniform]
    if mixture.has_errors and even:
        return f"{text}; the whisker of {_names(even)} reaches the even share."
    return f"{text}{', all with whiskers above the even share' * mixture.has_errors}."


def _trajectory(run: Run) -> str:
    rows = run.history
    if len(rows) < 4:
        return "Too few outer steps to see whether it settled."
    before, after = rows[3 * len(rows) // 4 - 1].mixture, rows[-1].mixture
    moved = sum(abs(a - b) for a, b in zip(after, before, strict=True)) / 2
    settled = "so the headline had settled" if moved < 0.05 else "so it had not settled"
    return f"Over the last quarter {percent(moved)} of the tokens moved, {settled}."


def _target(run: Run) -> str:
    falls = []
    for target in run.history[-1].target_loss if run.history else {}:
        losses = [row.target_loss[target] for row in run.history if target in row.target_loss]
        falls.append(losses[0] - losses[-1])
    if not falls or min(falls) > 0:
        return "It falls, as it must where scores are to mean anything."
    return "It does not fall on every target: there the scores mean little."


def _scores(run: Run, mixture: Mixture) -> str:
    if not run.history:
        return ""
    row = run.history[-1]
    average = mixture_average(row)
    above = [each for each in mixture.leaders if row.scores[each.index] > average]
    rest = [each for each in mixture.leaders if each not in above]
    text = "None of the headline’s sources stands above the average"
    if above:
        stand = "stands" if len(above) == 1 else "stand"
        text = f"Of the headline’s sources, {_names(above)} {stand} above the average"
    if rest:
        text += f"; the share of {_names(rest)} rests on other evidence, or on earlier steps"
    return f"{text}."


def _heat(run: Run, mixture: Mixture) -> str:
    ratios = [signal_to_noise(row) for row in run.history]
    shares = []
    for source in mixture.leaders:
        known = [r for row in ratios if (r := row[source.index]) is not None]
        if known:
            blue = sum(ratio > 0 for ratio in known) / len(known)
            shares.append(f"{shorten(source.name, 30)} {blue:.0%}")
    return f"Above the average at so many outer steps: {listing(shares)}." if shares else ""


def _names(sources: list[SourceView]) -> str:
    return listing([shorten(source.name, 30) for source in sources])
