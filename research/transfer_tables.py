"""The tables of the transfer study, from its records (see `research.transfer`)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastmix_mega.mixture.pool import rank_correlation
from fastmix_mega.mixture.simplex import geometric_mean

Record = dict[str, Any]
Records = dict[str, Record]
"""By the name of the job."""
DATA = ("fresh", "repeated")
SIZES = ("tiny", "demo", "1M")
BUDGETS = ("short", "long")
LARGE = "1M_long"


def tables(records: Records, limits: Sequence[str]) -> str:
    """All tables as Markdown; a cell without records shows a dash."""
    return "\n\n".join(
        [mixtures(records), retrained(records), predicted(records, limits), scarce(records)]
    )


def weights(records: Records, data: str, cell: str) -> np.ndarray | None:
    """[K, S] of the seeds' searches; None if fewer than two are there."""
    found = [
        list(records[name]["weights"].values())
        for name in records
        if name.startswith(f"search_{data}_{cell}_")
    ]
    return np.array(found) if len(found) > 1 else None


def pooled(values: np.ndarray) -> np.ndarray:
    """[S] as `fastmix pool` does."""
    return geometric_mean(np.log(values))


def moved(a: np.ndarray, b: np.ndarray) -> float:
    """Total variation: the share of the tokens that are elsewhere."""
    return float(np.abs(a - b).sum() / 2)


def mixtures(records: Records) -> str:
    """How far every proxy's pooled mixture is from the large run's own."""
    lines = [
        "| data | proxy | budget | tokens elsewhere than in the large run's own mixture | the same "
        "between this proxy's two seeds | rank correlation with the large run's |",
        "|---|---|---|---|---|---|",
    ]
    for data, cells in (*((d, BUDGETS) for d in DATA), ("matched", ("short",))):
        own = weights(records, "fresh" if data == "fresh" else "repeated", LARGE)
        for size in SIZES:
            for budget in cells:
                found = weights(records, data, f"{size}_{budget}")
                if found is None or own is None:
                    continue
                mine, theirs = pooled(found), pooled(own)
                noise = moved(found[0], found[1])
                line = f"| {data} | {size} | {budget} |"
                if data != "matched" and f"{size}_{budget}" == LARGE:
                    lines.append(f"{line} (the large run) | {noise:.3f} | |")
                    continue
                correlation = rank_correlation(mine, theirs)
                lines.append(
                    f"{line} {moved(mine, theirs):.3f} | {noise:.3f} | {correlation:.2f} |"
                )
    return "\n".join(lines)


def losses(records: Records, data: str, cell: str, mixture: str) -> dict[str, float]:
    """The mean of both targets' held-out losses, by training seed."""
    start = f"train_{data}_{cell}_on-{mixture}_"
    return {
        name.removeprefix(start): statistics.mean(record["losses"].values())
        for name, record in records.items()
        if name.startswith(start)
    }


def gap(mine: dict[str, float], theirs: dict[str, float]) -> str:
    """Paired by seed: mean, SD over seeds, and their number."""
    pairs = [mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())]
    if not pairs:
        return "–"
    spread = f", SD {statistics.stdev(pairs):.3f}" if len(pairs) > 1 else ""
    return f"{statistics.mean(pairs):+.3f} ({len(pairs)} seed{'s' * (len(pairs) > 1)}{spread})"


def retrained(records: Records) -> str:
    """The large run on every proxy's mixture, against uniform and against its own."""
    lines = ["| data | mixture | minus uniform | minus the large run's own |", "|---|---|---|---|"]
    for data in DATA:
        uniform = losses(records, data, LARGE, f"{data}-uniform")
        own = losses(records, data, LARGE, f"{data}-1M-long")
        names = [f"{data}-{size}-{budget}" for size in SIZES for budget in BUDGETS]
        names += [f"matched-{size}-short" for size in SIZES] if data == "repeated" else []
        for name in names:
            found = losses(records, data, LARGE, name)
            if found:
                against = "" if found == own else gap(found, own)
                lines.append(f"| {data} | {name} | {gap(found, uniform)} | {against} |")
    return "\n".join(lines)


def predicted(records: Records, limits: Sequence[str]) -> str:
    """The cost of constraints by the search's gains, against retrained models.

    Only searches that record their gains' scale are taken.
    """
    own = losses(records, "fresh", "demo_long", "fresh-demo-long")
    searched = [
        record
        for name, record in records.items()
        if "search_fresh_demo_long_" in name and "gain_scale" in record
    ]
    lines = [
        "| limit | tokens moved | predicted | the same, not scaled | retrained |",
        "|---|---|---|---|---|",
    ]
    for limit in limits:
        runs = [r for n, r in records.items() if f"_on-fresh-{limit}_" in n]
        plain = [r for n, r in records.items() if "fresh_demo_long_on-fresh-demo-long_" in n]
        if not runs or not plain or not searched:
            continue
        names = list(runs[0]["weights"])
        gains = np.mean([[each["gains"][name] for name in names] for each in searched], axis=0)
        unscaled = np.mean(
            [[each["gains"][n] / each["gain_scale"] for n in names] for each in searched], axis=0
        )
        free = np.array([plain[0]["weights"][name] for name in names])
        held = np.array([runs[0]["weights"][name] for name in names])
        cost, raw = float((free - held) @ gains), float((free - held) @ unscaled)
        found = losses(records, "fresh", "demo_long", f"fresh-{limit}")
        lines.append(
            f"| {limit} | {moved(free, held):.2f} | {cost:+.3f} | {raw:+.3f} | {gap(found, own)} |"
        )
    return "\n".join(lines)


def scarce(records: Records) -> str:
    """The shares of the scarce sources, and how often the large run would read them."""
    names = ("python", "docstrings", "readmes")
    lines = [
        "| searched on | proxy | budget | " + " | ".join(names) + " | together |",
        "|---|---|---|---|---|---|---|",
    ]
    for data, cells in (*((d, BUDGETS) for d in DATA), ("matched", ("short",))):
        for size in SIZES:
            for budget in cells:
                found = weights(records, data, f"{size}_{budget}")
                if found is None:
                    continue
                order = list(next(iter(records.values()))["weights"])
                mine = pooled(found)
                shares = [float(mine[order.index(name)]) for name in names]
                shown = " | ".join(f"{share:.1%}" for share in (*shares, sum(shares)))
                lines.append(f"| {data} | {size} | {budget} | {shown} |")
    return "\n".join(lines)
