"""Numbers of tokens and steps as people write them: 2T, 300B, 1.5k, 1e3, 20,000."""

from __future__ import annotations

import re
from decimal import Decimal

UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_WRITTEN = re.compile(
    r"\s*(?P<number>[+-]?\d[\d_,]*(?:\.\d*)?(?:e[+-]?\d{1,2})?)\s*(?P<unit>[kmbt]?)\s*",
    re.IGNORECASE,
)


def parse_quantity(text: str) -> int:
    """A whole number.

    Raises:
        ValueError: if the text is none.
    """
    written = _WRITTEN.fullmatch(text)
    if written is None:
        raise ValueError(f"{text!r} is no number such as 20000, 1e3 or 300B")
    number = re.sub(r"[_,]", "", written["number"])
    value = Decimal(number) * UNITS[written["unit"].lower()]
    if value != int(value):
        raise ValueError(f"{text!r} is no whole number")
    return int(value)


def with_unit(value: float) -> str:
    """Three digits and a unit: 870, 410k, 1.2M, 3.4B, 5T."""
    for unit in ("T", "B", "M", "k"):
        # 999,950 rounds to 1M rather than 1000k.
        if abs(value) >= 0.9995 * UNITS[unit.lower()]:
            return f"{value / UNITS[unit.lower()]:.3g}{unit}"
    return f"{value:.3g}"


def in_bytes(value: float) -> str:
    """Three digits and a unit: 512 bytes, 20.1 MB, 1.5 TB."""
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} bytes"


def in_seconds(value: float) -> str:
    """Three digits and a unit: 1.5 s, 20 ms, 3 µs."""
    for size, unit in ((1.0, "s"), (1e-3, "ms")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} µs"


def in_epochs(times: float) -> str:
    """Two decimals, or three digits and a unit where nobody counts so far."""
    return f"{times:.2f}" if times < 1000 else with_unit(times)
