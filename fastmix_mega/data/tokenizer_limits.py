"""What a tokenizer file of unknown origin may ask for, and how its library's failures are told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from fastmix_mega.errors import UserError

LARGEST = 256 << 20
"""Bytes of a tokenizer's file; the largest known ones have 40 MB."""
MOST_TOKENS = 1 << 24
"""One more than the highest id: every id is a row of the model."""
MOST_GROWTH = 100
"""How much longer a text may become before it is cut into tokens."""


def require_bounded_growth(content: Any, path: str) -> None:
    """Raises: UserError if a few replacements, one after the other, make gigabytes of a text."""
    growth = 1.0
    steps = [content.get(key) for key in ("normalizer", "pre_tokenizer")]
    while steps:
        step = steps.pop()
        if isinstance(step, list):
            steps += step
        if not isinstance(step, dict):
            continue
        steps += [step.get("normalizers"), step.get("pretokenizers")]
        given = step.get("content") if step.get("type") == "Replace" else step.get("prepend")
        if isinstance(given, str):
            pattern = step.get("pattern")
            replaced = pattern.get("String") if isinstance(pattern, dict) else None
            length = len(replaced) if isinstance(replaced, str) and replaced else 1
            growth *= max(1.0, len(given) / length)
    if growth > MOST_GROWTH:
        raise UserError(
            f"tokenizer: {path} replaces text by text that is {growth:,.0f} times as long; at most "
            f"{MOST_GROWTH} times is taken"
        )


@contextlib.contextmanager
def failures_told(path: str) -> Iterator[None]:
    """Inside, a failure of the library of tokenizers is a UserError.

    It raises bare Exception, and panics where a pattern takes too many steps or a number is one
    that it did not expect.
    """
    try:
        yield
    except BaseException as error:
        if type(error) is not Exception and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"tokenizer: {path} cannot be used: its library fails: {reason}") from None
