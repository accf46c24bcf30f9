"""Rows of files that have columns: Parquet, Arrow, CSV."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, TypeVar

from data_tools.compression import decoding_errors
from data_tools.fields import Blank, Problem
from data_tools.inputs import InputFile, Unit
from fastmix_mega.errors import UserError

Read = TypeVar("Read")
ROWS = 512
"""Rows of a column that are turned into Python strings at a time."""

Columns = Callable[[Sequence[str]], list[str]]
"""The columns to read, of those that a file has."""
Row = dict[str, Any]


def read_table(file: InputFile, unit: Unit, columns: Columns) -> Iterator[Row | Problem]:
    """Yield an object or a Problem for every row of a Parquet or Arrow file's unit.

    Raises:
        UserError: if the file cannot be read.
    """
    import pyarrow

    try:
        batches = _parquet if file.kind == "parquet" else _arrow
        for batch in batches(file, unit, columns):
            yield from _rows(batch)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"cannot read {file.shown}: {error}; is it whole?") from None


def _parquet(file: InputFile, unit: Unit, columns: Columns) -> Iterator[Any]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file.source()) as table:
        wanted = columns(table.schema_arrow.names)
        groups = range(unit.start, unit.end)
        for batch in table.iter_batches(ROWS, row_groups=groups, columns=wanted, use_threads=False):
            # The library takes a dotted name for a path, too, and reads what lies there.
            yield batch.select(wanted)


def _arrow(file: InputFile, _unit: Unit, columns: Columns) -> Iterator[Any]:
    import pyarrow
    import pyarrow.ipc

    with pyarrow.memory_map(file.path) as source:
        is_file = source.read(6) == b"ARROW1"
        source.seek(0)
        if is_file:
            with pyarrow.ipc.open_file(source) as reader:
                wanted = columns(reader.schema.names)
                for number in range(reader.num_record_batches):
                    yield from _slices(reader.get_batch(number), wanted)
        else:
            with pyarrow.ipc.open_stream(source) as stream:
                wanted = columns(stream.schema.names)
                for batch in stream:
                    yield from _slices(batch, wanted)


def _slices(batch: Any, wanted: list[str]) -> Iterator[Any]:
    for start in range(0, batch.num_rows, ROWS):
        yield batch.slice(start, ROWS).select(wanted)


def _rows(batch: Any) -> Iterator[Row | Problem]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        # One broken string must not hide its neighbours.
        for number in range(batch.num_rows):
            yield _row(batch, number)


def _row(batch: Any, number: int) -> Row | Problem:
    found = {}
    for name in batch.schema.names:
        try:
            found[name] = batch.column(name)[number].as_py()
        except UnicodeDecodeError as error:
            return Problem(f"not UTF-8 (byte {error.start} of the text)")
    return found


def read_csv(
    file: InputFile, stream: BinaryIO, columns: Columns, largest: int
) -> Iterator[Row | Problem]:
    """Yield an object or a Problem for every row below the first, which names the columns.

    Args:
        file: of kind csv or tsv.
        stream: its bytes, decompressed.
        columns: called with the names of the first row.
        largest: bytes; a longer field is a problem.

    Raises:
        UserError: if the first row is no row of names, or a quotation mark is never closed.
    """
    # A field's limit is the module's, not the reader's.
    csv.field_size_limit(min(largest, sys.maxsize))
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    rows = csv.reader(text, delimiter="\t" if file.kind == "tsv" else ",", strict=True)
    try:
        names = next(rows, None)
    except csv.Error as error:
        raise UserError(f"{file.shown}: its first row cannot be read: {error}") from None
    if names is None:
        return
    if len(set(names)) < len(names):
        raise UserError(f"{file.shown}: two columns have the same name; rename one")
    wanted = set(columns(names))
    try:
        while True:
            try:
                row = next(rows, None)
            except csv.Error as error:
                if "end of data" in str(error):
                    raise UserError(
                        f"{file.shown}: the quotation mark that opens before line {rows.line_num} "
                        "is never closed"
                    ) from None
                yield Problem(f"not a row of CSV ({error})")
                continue
            if row is None:
                return
            yield _named(row, names, wanted) if row else Blank()
    except decoding_errors() as error:
        raise UserError(f"cannot read {file.shown}: {error}; is it whole?") from None


def _named(row: list[str], names: list[str], wanted: set[str]) -> Row | Problem:
    if len(row) != len(names):
        return Problem(f"{len(row)} fields, but the first row names {len(names)}")
    found = {name: value for name, value in zip(names, row, strict=True) if name in wanted}
    if any(not value.isascii() and not _is_unicode(value) for value in found.values()):
        return Problem("not UTF-8")
    return found


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
