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
