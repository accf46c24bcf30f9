"""The documents of a unit: one text or row, or one reason why there is none, for every line or row.

Nothing is left out: what is not a document comes as a `Problem` with its number in the unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import orjson

from data_tools.compression import decoding_errors, open_decoded
from data_tools.fields import BLANK, Blank, Problem, parse_json, text_of, top_fields, utf8_size
from data_tools.inputs import BUFFER, BYTE_ORDER_MARK, InputFile, Unit
from data_tools.json_arrays import BrokenArray, split_array
from data_tools.tables import Columns, Row, read_csv, read_table
from fastmix_mega.errors import UserError

__all__ = ["Blank", "Problem", "ReadOptions", "Record", "read_records", "read_rows", "read_unit"]


@dataclass(frozen=True)
class ReadOptions:
    """How text is taken from inputs."""

    text_keys: tuple[str, ...] = ("text",)
    """Fields, in the order in which their texts are joined; `a.b` is the field b of the object a,
    unless a field is called `a.b`."""
    text_unit: str = "line"
    """What a document is in plain text: `line` or `file`."""
    largest: int = 256 << 20
    """Bytes; a longer line or text is a problem."""
    separator: str = "\n\n"
    """Between the texts of several fields."""


@dataclass(frozen=True)
class Record:
    """A document with all that its row holds."""

    text: str
    json: bytes
    """The row as one line of JSON; of JSON lines exactly what was read."""


def read_unit(file: InputFile, unit: Unit, options: ReadOptions) -> Iterator[str | Problem]:
    """Yield a text or a Problem for every line or row.

    Raises:
        UserError: if the file cannot be read at all; a broken compressed stream is one.
    """
    if file.kind == "text":
        yield from _texts(file, unit, options)
        return
    if file.kind in ("jsonl", "array"):
        for line in _json_lines(file, unit, options.largest):
            row = line if isinstance(line, Problem) else parse_json(line)
            yield row if isinstance(row, Problem) else _text(row, options)
        return
    for row in _table_rows(file, unit, _text_columns(file, options), options.largest):
        yield row if isinstance(row, Problem) else _text(row, options)


def read_rows(
    file: InputFile, unit: Unit, options: ReadOptions, fields: Sequence[str]
) -> Iterator[Row | Problem]:
    """Yield an object or a Problem for every line or row.

    Args:
        file: anything but plain text.
        unit: of the file.
        options: only `largest` counts.
        fields: the columns to read where a file has columns, and has them.

    Raises:
        UserError: as `read_unit`.
    """
    assert file.kind != "text"
    if file.kind in ("jsonl", "array"):
        for line in _json_lines(file, unit, options.largest):
            yield line if isinstance(line, Problem) else _json_object(line)
        return

    def columns(names: Sequence[str]) -> list[str]:
        return [name for name in names if name in fields]

    yield from _table_rows(file, unit, columns, options.largest)


def column_names(file: InputFile, unit: Unit, options: ReadOptions) -> list[str]:
    """The columns of a file that has columns; none of a unit without rows."""
    names: list[str] = []

    def columns(found: Sequence[str]) -> list[str]:
        names.extend(found)
        return list(found[:1])

    next(_table_rows(file, unit, columns, options.largest), None)
    return names


def read_records(file: InputFile, unit: Unit, options: ReadOptions) -> Iterator[Record | Problem]:
    """Yield a document with its whole row, or a Problem, for every line or row.

    Raises:
        UserError: as `read_unit`, and for a value that JSON cannot hold.
    """
    if file.kind == "text":
        for text in _texts(file, unit, options):
            if isinstance(text, Problem):
                yield text
            else:
                yield Record(text, orjson.dumps({"text": text}))
    elif file.kind in ("jsonl", "array"):
        for line in _json_lines(file, unit, options.largest):
            yield line if isinstance(line, Problem) else _json_record(line, file, options)
    else:
        text_columns = _text_columns(file, options)

        def columns(names: Sequence[str]) -> list[str]:
            text_columns(names)
            return list(names)

        for row in _table_rows(file, unit, columns, options.largest):
            found = row if isinstance(row, Problem) else _text(row, options)
            yield found if isinstance(found, Problem) else Record(found, row_as_json(row, file))


def _json_record(line: bytes, file: InputFile, options: ReadOptions) -> Record | Problem:
    row = parse_json(line)
    text = row if isinstance(row, Problem) else _text(row, options)
    if isinstance(text, Problem):
        return text
    line = line.strip()
    # An element of an array may span lines.
    one_line = b"\n" not in line and b"\r" not in line
    return Record(text, line if one_line else row_as_json(row, file))


def row_as_json(row: Any, file: InputFile) -> bytes:
    """A row as one line of JSON, with NaN and Infinity as Python writes them.

    Raises:
        UserError: for bytes and other values that have no JSON.
    """
    import datetime
    import decimal
    import json

    def other(value: Any) -> Any:
        if isinstance(value, datetime.date | datetime.time | decimal.Decimal):
            return str(value)
        raise UserError(
            f"{file.shown} holds {type(value).__name__}, which JSON cannot hold; leave the column "
            "out"
        )

    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=other)
    return text.encode("utf-8")


def lines_before(file: InputFile, unit: Unit) -> int:
    """Lines or rows of the file before a unit, counted anew: only problems need them."""
    if file.kind == "parquet":
        import pyarrow.parquet

        metadata = pyarrow.parquet.read_metadata(file.source())
        return sum(metadata.row_group(group).num_rows for group in range(unit.start))
    if unit.start == 0:
        return 0
    lines, left = 0, unit.start
    ends = True
    with file.open() as stream:
        while left and (block := stream.read(min(left, 1 << 20))):
            lines += block.count(b"\n")
            ends = block.endswith(b"\n")
            left -= len(block)
    # A line that was under way where the unit starts belongs to the unit before.
    return lines if ends else lines + 1


def _open(file: InputFile) -> BinaryIO:
    return open_decoded(file.source(), file.compression, BUFFER)


def _text(row: Any, options: ReadOptions) -> str | Problem:
    found = text_of(row, options.text_keys, options.separator)
    if isinstance(found, str) and len(found) * 4 > options.largest:
        size = utf8_size(found)
        if size > options.largest:
            return Problem(f"longer than {options.largest:,} bytes", size)
    return found


def _json_object(line: bytes) -> Row | Problem:
    row = parse_json(line)
    return row if isinstance(row, dict | Problem) else Problem("not an object", len(line))


def _json_lines(file: InputFile, unit: Unit, largest: int) -> Iterator[bytes | Problem]:
    yield from _elements(file, largest) if file.kind == "array" else _lines(file, unit, largest)


def _elements(file: InputFile, largest: int) -> Iterator[bytes | Problem]:
    try:
        with _open(file) as stream:
            if stream.read(len(BYTE_ORDER_MARK)) != BYTE_ORDER_MARK:
                stream.seek(0)
            for element in split_array(stream, largest):
                if isinstance(element, int):
                    yield Problem(f"longer than {largest:,} bytes", element)
                else:
                    yield element or Problem("not JSON (nothing between two commas)")
    except BrokenArray as error:
        raise UserError(f"{file.shown} starts as one JSON array, but {error}") from None
    except decoding_errors() as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"cannot read {file.shown}: {reason}; is it whole?") from None


def _texts(file: InputFile, unit: Unit, options: ReadOptions) -> Iterator[str | Problem]:
    if options.text_unit == "file":
        yield _whole_file(file, options)
        return
    for line in _lines(file, unit, options.largest):
        yield line if isinstance(line, Problem) else _plain_text(line)


def _lines(file: InputFile, unit: Unit, largest: int) -> Iterator[bytes | Problem]:
    try:
        with _open(file) as stream:
            position, end = unit.start, unit.end
            if file.compression:
                position, end = 0, 1 << 62
            elif position:
                # The line that is under way belongs to the unit before.
                stream.seek(position - 1)
                position += _skip_line(stream) - 1
            while position < end:
                line = stream.readline(largest + 1)
                if not line:
                    if not file.compression:
                        raise UserError(f"{file.shown} became shorter while it was read")
                    return
                start, position = position, position + len(line)
                if len(line) > largest and not line.endswith(b"\n"):
                    position += _skip_line(stream)
                    yield Problem(f"longer than {largest:,} bytes", position - start)
                else:
                    yield line if start else line.removeprefix(BYTE_ORDER_MARK)
    except decoding_errors() as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"cannot read {file.shown}: {reason}; is it whole?") from None


def _skip_line(stream: BinaryIO) -> int:
    """Read to the next line's start; returns how many bytes that were."""
    skipped = 0
    while piece := stream.readline(1 << 20):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def _plain_text(line: bytes) -> str | Problem:
    try:
        text = line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        return Problem(f"not UTF-8 (byte {error.start} of the line)", len(line))
    return text if text else BLANK


def _whole_file(file: InputFile, options: ReadOptions) -> str | Problem:
    try:
        with _open(file) as stream:
            content = stream.read(options.largest + 1)
    except decoding_errors() as error:
        raise UserError(f"cannot read {file.shown}: {error}; is it whole?") from None
    if len(content) > options.largest:
        return Problem(f"longer than {options.largest:,} bytes", file.size)
    try:
        text = content.removeprefix(BYTE_ORDER_MARK).decode("utf-8")
    except UnicodeDecodeError as error:
        return Problem(f"not UTF-8 (byte {error.start} of the file)", len(content))
    return text or Problem("the text is empty")


def _table_rows(
    file: InputFile, unit: Unit, columns: Columns, largest: int
) -> Iterator[Row | Problem]:
    if file.kind not in ("csv", "tsv"):
        yield from read_table(file, unit, columns)
        return
    with _open(file) as stream:
        yield from read_csv(file, stream, columns, largest)


def _text_columns(file: InputFile, options: ReadOptions) -> Callable[[Sequence[str]], list[str]]:
    def columns(names: Sequence[str]) -> list[str]:
        found: dict[str, None] = {}
        for key in options.text_keys:
            holders = top_fields(key, names)
            if not holders:
                raise UserError(
                    f"{file.shown} has no column {key.split('.')[0]!r}; it has {', '.join(names)} "
                    "(--text-key)"
                )
            found.update(dict.fromkeys(holders))
        return list(found)

    return columns
