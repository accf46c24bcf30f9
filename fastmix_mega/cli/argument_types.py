"""What argparse makes of a number on the command line."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """Of at least 1."""
    if count(text) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)


def count(text: str) -> int:
    """Of at least 0."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if value < 0:
        raise argparse.ArgumentTypeError("must be at least 0")
    return value
