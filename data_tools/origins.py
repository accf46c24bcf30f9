"""Where each document of a prefix came from: `<prefix>.origins.parquet`, a row per document.

Its columns are `file`, as the user named it, and `row`, the line, row or element of the file from
1. The rows are in the order of the documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_tools.inputs import InputFile, Unit
from data_tools.parts import Marker, PartLayout
from data_tools.readers import lines_before
from fastmix_mega.errors import UserError
from fastmix_mega.files import open_atomic


def origins_path(prefix: str | Path) -> Path:
    return Path(f"{prefix}.origins.parquet")


def write_origins(
    prefix: Path,
    inputs: tuple[Sequence[InputFile], Sequence[Unit]],
    parts: Sequence[tuple[Marker, Path]],
    layout: PartLayout,
) -> None:
    """Write the file in constant memory.

    Args:
        prefix: of the documents.
        inputs: the files of the run and all their units.
        parts: every marker and the file of its documents, in order.
        layout: of those files.
    """
    import pyarrow
    import pyarrow.parquet

    files, units = inputs
    text = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    schema = pyarrow.schema([("file", text), ("row", pyarrow.int64())])
    names = pyarrow.array([file.shown for file in files], pyarrow.string())
    ends: dict[int, tuple[int, int]] = {}
    with (
        open_atomic(origins_path(prefix)) as stream,
        pyarrow.parquet.ParquetWriter(stream, schema) as writer,
    ):
        for marker, path in parts:
            unit = units[marker.unit]
            # The lines before a unit are those of the units before, where this run has them all.
            number, end = ends.get(unit.file, (-1, 0))
            first = end if number == marker.unit - 1 else lines_before(files[unit.file], unit)
            ends[unit.file] = (marker.unit, first + marker.counts.lines)
            region = layout.regions(path, marker)["rows"]
            rows = np.fromfile(path, np.int64, marker.documents, offset=region.start)
            of_file = np.full(marker.documents, unit.file, np.int32)
            column = pyarrow.DictionaryArray.from_arrays(pyarrow.array(of_file), names)
            batch = pyarrow.record_batch([column, pyarrow.array(rows + first)], schema=schema)
            writer.write_batch(batch)


def join_origins(prefixes: Sequence[str], output: Path) -> bool:
    """Join the origins of prefixes that are merged; False, and no file, where one has none.

    Raises:
        UserError: if one of the files cannot be read.
    """
    import pyarrow
    import pyarrow.parquet

    paths = [origins_path(prefix) for prefix in prefixes]
    if not all(path.is_file() for path in paths):
        return False
    plain = pyarrow.schema([("file", pyarrow.string()), ("row", pyarrow.int64())])
    try:
        with (
            open_atomic(origins_path(output)) as stream,
            pyarrow.parquet.ParquetWriter(stream, plain) as writer,
        ):
            for path in paths:
                with pyarrow.parquet.ParquetFile(path) as table:
                    for batch in table.iter_batches(columns=["file", "row"]):
                        writer.write_batch(batch.cast(plain))
    except pyarrow.ArrowException as error:
        raise UserError(f"the origins of {', '.join(prefixes)} cannot be joined: {error}") from None
    return True
