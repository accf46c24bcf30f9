"""Numbers and findings in plain words."""

from __future__ import annotations

from collections.abc import Sequence


def percent(share: float) -> str:
    """About two digits: 31%, 4.2%, 0.38%."""
    if 0 < share < 0.00005:
        return "<0.01%"
    if share >= 0.0995:
        return f"{100 * share:.0f}%"
    if share >= 0.00995 or share == 0:
        return f"{100 * share:.1f}%".replace("0.0%", "0%")
    return f"{100 * share:.2f}%"


def exact_percent(share: float) -> str:
    """For tables: two decimals, so that a column lines up."""
    return f"{100 * share:.2f}%"


def quantity(value: float) -> str:
    """Three digits and a unit: 870, 410k, 1.2M, 3.4B, 5T."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        # 999,950 rounds to 1M rather than 1000k.
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def signed(value: float) -> str:
    """Three significant digits with a sign and a real minus."""
    if value == 0:
        return "0"
    text = f"{value:+.3g}" if 1e-3 <= abs(value) < 1e5 else f"{value:+.1e}"
    return text.replace("e+0", "e").replace("e-0", "e-").replace("-", "−")


def minus(value: float) -> str:
    """Three decimals, with a sign and a real minus: nats per token."""
    return f"{value:+.3f}".replace("-", "−")


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listing(items: Sequence[str], most: int = 6) -> str:
    """`a, b and c`; a long list ends in `and 17 more`."""
    shown = list(items[:most])
    if len(items) > most:
        shown.append(f"{len(items) - most} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def shorten(name: str, length: int = 20) -> str:
    """Cut the middle: the ends are what tells long names apart."""
    if len(name) <= length:
        return name
    kept = length - 1
    return f"{name[: kept // 2]}…{name[-(kept - kept // 2) :]}"


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h"
