"""Shares of tokens, shares of rows, epochs, shares kept: from one to the other, and back.

A mixture's weight w is a share of the tokens. With T tokens in R rows, and B tokens to train on:

    epochs             e = w B / T
    share of the rows  proportional to e R
    share kept         e over the largest e: what is left if no row may be read twice as often as
                       the file says
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fastmix_mega.config.mistakes import shorten
from fastmix_mega.config.parse import read_yaml_file
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.errors import UserError
from fastmix_mega.export.blend import Unit
from fastmix_mega.export.plan import Part
from fastmix_mega.mixture.file import MOST_TOKENS
from fastmix_mega.quantities import parse_quantity


@dataclass(frozen=True)
class Size:
    tokens: int
    rows: int | None = None


def epochs_of(parts: Sequence[Part], budget: int, reader: str) -> list[float]:
    """How often each part is read within `budget` tokens. Raises: UserError without its size."""
    return [part.weight * budget / _tokens(part, reader) for part in parts]


def kept_of(parts: Sequence[Part], reader: str) -> list[float]:
    """The share of each part's rows in the largest mixture that repeats none; in (0, 1]."""
    scarcity = [part.weight / _tokens(part, reader) for part in parts]
    return [value / max(scarcity) for value in scarcity]


def row_shares_of(parts: Sequence[Part], reader: str) -> list[float]:
    """The probability of drawing a row of each part, so that tokens come in the mixture's shares.

    Raises:
        UserError: if nobody has counted a part's rows.
    """
    rates = []
    for part in parts:
        if not part.rows:
            raise UserError(
                f"{reader} draws rows, which differ in length: the rows of {part.source} must be "
                "known; give a mixture whose prefixes lead to the token files of the same rows"
            )
        rates.append(part.weight * part.rows / _tokens(part, reader))
    return [rate / sum(rates) for rate in rates]


def decimal(value: float) -> str:
    """Without an exponent and with a point, to 12 digits; never 0 for what is not."""
    text = f"{value:.12f}".rstrip("0")
    text = text + "0" if text.endswith(".") else text
    return text if float(text) > 0 or value == 0 else f"{value:.24f}".rstrip("0")


def to_token_shares(
    parts: Sequence[Part], unit: Unit, sizes: Mapping[str, Size]
) -> tuple[list[Part], list[str]]:
    """Parts whose weights are proportional to tokens, with their sizes, and the names of those
    whose size was needed and is unknown (their weights are unchanged).

    Args:
        parts: as read.
        unit: of their weights.
        sizes: by the source's name or path; token files are asked where a part has none.
    """
    found, unknown = [], []
    for part in parts:
        size = size_of(part, sizes)
        tokens, rows = (None, None) if size is None else (size.tokens, size.rows)
        part = replace(part, tokens=tokens, rows=rows)
        if unit == "tokens":
            found.append(part)
        elif tokens is None or (unit == "rows" and not rows):
            unknown.append(part.source or part.path)
            found.append(part)
        else:
            by = tokens / rows if unit == "rows" and rows else tokens
            found.append(replace(part, weight=part.weight * by))
    return found, unknown


def size_of(part: Part, sizes: Mapping[str, Size]) -> Size | None:
    """From the user's table, from the file itself, from token files at the part's path, or None."""
    for key in (part.source, part.path, Path(part.path).name):
        if key and key in sizes:
            return sizes[key]
    if part.tokens is not None:
        return Size(part.tokens, part.rows)
    for prefix in (part.path, part.path.removesuffix(".bin")):
        if not prefix or "://" in prefix:
            continue
        try:
            file = IndexedTokens(prefix)
        except UserError:
            continue
        return Size(file.num_tokens, file.num_documents)
    return None


def read_sizes(path: str | Path) -> dict[str, Size]:
    """A YAML file of `name: tokens` or `name: {tokens: N, rows: N}`; numbers as 1.5T.

    Raises:
        UserError: naming the line that is wrong.
    """
    try:
        content = read_yaml_file(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"cannot read the sizes {path}: {reason}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold `name: tokens` lines")
    found = {}
    for name, value in content.items():
        given = value if isinstance(value, dict) else {"tokens": value}
        unknown = set(given) - {"tokens", "rows"}
        if unknown or given.get("tokens") is None:
            raise UserError(f"{path}: {name}: give tokens, and rows where rows are drawn")
        tokens, rows = (_quantity(given.get(key), f"{path}: {name}") for key in ("tokens", "rows"))
        assert tokens is not None
        found[str(name)] = Size(tokens, rows)
    return found


def _quantity(value: object, where: str) -> int | None:
    """1500, 1.5k, 2T."""
    if value is None:
        return None
    try:
        number = parse_quantity(str(value))
    except ValueError:
        number = 0
    if not 0 < number <= MOST_TOKENS:
        told = shorten(repr(value))
        raise UserError(f"{where}: {told} is no number of tokens or rows, such as 1.5B")
    return number


def _tokens(part: Part, reader: str) -> int:
    if not part.tokens:
        raise UserError(
            f"{reader} must know how much text there is: the mixture does not tell the tokens of "
            f"{part.source}, and its token files are not to be had"
        )
    return part.tokens
