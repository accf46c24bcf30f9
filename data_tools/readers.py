"""The documents of a unit: one text or row, or one reason why there is none, for every line or row.

Nothing is left out: what is not a document comes as a `Problem` with its number in the unit.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar, cast

import orjson

from data_tools.inputs import InputFile, Unit
from fastmix_mega.errors import UserError

Read = TypeVar("Read")
ROWS = 512
"""Rows of a column that are turned into Python strings at a time."""


@dataclass(frozen=True)
class Problem:
    """A line or row that is no document."""

    reason: str


@dataclass(frozen=True)
class ReadOptions:
    """How text is taken from inputs."""

    text_key: str = "text"
    """A field; `a.b` is the field b of the object a, unless a field is called `a.b`."""
    text_unit: str = "line"
    """What a document is in plain text: `line` or `file`."""
    largest: int = 256 << 20
    """Bytes; a longer line or text is a problem."""


def read_unit(file: InputFile, unit: Unit, options: ReadOptions) -> Iterator[str | Problem]:
    """Yield a text or a Problem for every line or row.

    Raises:
        UserError: if the file cannot be read at all; a broken compressed stream is one.
    """
    if file.kind == "parquet":
        yield from _parquet(file, unit, *_text_column(file, options))
    elif file.kind == "arrow":
        yield from _arrow(file, unit, *_text_column(file, options))
    elif file.kind == "text" and options.text_unit == "file":
        yield _whole_file(file, options)
    else:
        text_of = _json_text if file.kind == "jsonl" else _plain_text
        for line in _lines(file, unit, options.largest):
            yield line if isinstance(line, Problem) else text_of(line, options.text_key)


def read_rows(
    file: InputFile, unit: Unit, options: ReadOptions, fields: Sequence[str]
) -> Iterator[dict[str, Any] | Problem]:
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
    if file.kind == "jsonl":
        for line in _lines(file, unit, options.largest):
            yield line if isinstance(line, Problem) else _json_object(line)
        return

    def columns(names: Sequence[str]) -> list[str]:
        return [name for name in names if name in fields]

    def rows(batch: Any) -> Iterator[dict[str, Any] | Problem]:
        try:
            yield from batch.to_pylist()
        except UnicodeDecodeError:
            # One broken string must not hide its neighbours.
            for number in range(batch.num_rows):
                yield _row(batch, number)

    yield from (_parquet if file.kind == "parquet" else _arrow)(file, unit, columns, rows)


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


def open_decoded(file: InputFile) -> BinaryIO:
    """The file's bytes, decompressed as they are read."""
    if file.compression == "gzip":
        return cast(BinaryIO, gzip.open(file.source(), "rb"))
    if file.compression == "bzip2":
        return cast(BinaryIO, bz2.open(file.source(), "rb"))
    if file.compression == "xz":
        return cast(BinaryIO, lzma.open(file.source(), "rb"))
    if file.compression == "zstd":
        from backports import zstd

        # Files made with --long have windows above the default limit.
        long_windows = {zstd.DecompressionParameter.window_log_max: 31}
        return cast(BinaryIO, cast(Any, zstd).open(file.source(), "rb", options=long_windows))
    return file.open()


def _decoding_errors() -> tuple[type[Exception], ...]:
    from backports import zstd

    return (EOFError, zlib.error, lzma.LZMAError, zstd.ZstdError, OSError)


def _lines(file: InputFile, unit: Unit, largest: int) -> Iterator[bytes | Problem]:
    try:
        with open_decoded(file) as stream:
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
                        raise UserError(f"{file.path} became shorter while it was read")
                    return
                position += len(line)
                if len(line) > largest and not line.endswith(b"\n"):
                    position += _skip_line(stream)
                    yield Problem(f"longer than {largest:,} bytes")
                else:
                    yield line
    except _decoding_errors() as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"cannot read {file.path}: {reason}; is it whole?") from None


def _skip_line(stream: BinaryIO) -> int:
    """Read to the next line's start; returns how many bytes that were."""
    skipped = 0
    while piece := stream.readline(1 << 20):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def _json(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        if not line.strip():
            return Problem("the line is empty")
        return Problem(f"not JSON ({error})")


def _json_text(line: bytes, key: str) -> str | Problem:
    row = _json(line)
    return row if isinstance(row, Problem) else _field(row, key)


def _json_object(line: bytes) -> dict[str, Any] | Problem:
    row = _json(line)
    return row if isinstance(row, dict | Problem) else Problem("not an object")


def _field(row: Any, key: str) -> str | Problem:
    value = row
    if isinstance(row, dict) and key in row:
        value = row[key]
    else:
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                return Problem(f"not an object with the key {key!r}")
            value = value[part]
    if not isinstance(value, str):
        return Problem(f"{key!r} is not a string")
    return value if value else Problem("the text is empty")


def _plain_text(line: bytes, _key: str) -> str | Problem:
    try:
        text = line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        return Problem(f"not UTF-8 (byte {error.start} of the line)")
    return text if text else Problem("the line is empty")


def _whole_file(file: InputFile, options: ReadOptions) -> str | Problem:
    try:
        with open_decoded(file) as stream:
            content = stream.read(options.largest + 1)
    except _decoding_errors() as error:
        raise UserError(f"cannot read {file.path}: {error}; is it whole?") from None
    if len(content) > options.largest:
        return Problem(f"longer than {options.largest:,} bytes")
    try:
        return content.decode("utf-8") or Problem("the text is empty")
    except UnicodeDecodeError as error:
        return Problem(f"not UTF-8 (byte {error.start} of the file)")


Columns = Callable[[Sequence[str]], list[str]]
"""The columns to read, of those that a file has."""
Rows = Callable[[Any], Iterator[Read]]
"""What a batch of those columns holds."""


def _parquet(
    file: InputFile, unit: Unit, columns: Columns, read: Rows[Read]
) -> Iterator[Read | Problem]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file.source()) as table:
            wanted = columns(table.schema_arrow.names)
            for batch in table.iter_batches(
                ROWS, row_groups=range(unit.start, unit.end), columns=wanted, use_threads=False
            ):
                yield from read(batch)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"cannot read {file.path}: {error}; is it whole?") from None


def _arrow(
    file: InputFile, _unit: Unit, columns: Columns, read: Rows[Read]
) -> Iterator[Read | Problem]:
    import pyarrow
    import pyarrow.ipc

    try:
        with pyarrow.memory_map(file.path) as source, pyarrow.ipc.open_stream(source) as stream:
            wanted = columns(stream.schema.names)
            for batch in stream:
                for start in range(0, batch.num_rows, ROWS):
                    yield from read(batch.slice(start, ROWS).select(wanted))
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"cannot read {file.path}: {error}; is it whole?") from None


def _text_column(file: InputFile, options: ReadOptions) -> tuple[Columns, Rows[str | Problem]]:
    key = options.text_key

    def columns(names: Sequence[str]) -> list[str]:
        column = key if key in names else key.split(".")[0]
        if column not in names:
            raise UserError(
                f"{file.path} has no column {column!r}; it has {', '.join(names)} (--text-key)"
            )
        return [column]

    return columns, lambda batch: _column(batch, options)


def _column(batch: Any, options: ReadOptions) -> Iterator[str | Problem]:
    name = batch.schema.names[0]
    try:
        values: list[Any] = batch.column(0).to_pylist()
    except UnicodeDecodeError:
        # One broken string must not hide its neighbours.
        values = [_scalar(batch.column(0), row) for row in range(batch.num_rows)]
    for value in values:
        if isinstance(value, Problem):
            yield value
        else:
            found = _field({name: value}, options.text_key)
            too_long = isinstance(found, str) and len(found) > options.largest
            yield Problem(f"longer than {options.largest:,} bytes") if too_long else found


def _scalar(column: Any, row: int) -> Any:
    try:
        return column[row].as_py()
    except UnicodeDecodeError as error:
        return Problem(f"not UTF-8 (byte {error.start} of the text)")


def _row(batch: Any, number: int) -> dict[str, Any] | Problem:
    found = {name: _scalar(batch.column(name), number) for name in batch.schema.names}
    problem = next((value for value in found.values() if isinstance(value, Problem)), None)
    return found if problem is None else problem
