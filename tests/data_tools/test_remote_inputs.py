"""Corpora behind URLs give the bytes that files on the disk give."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from backports import zstd

from data_tools import preprocess
from data_tools.inputs import cut_into_units, list_inputs
from data_tools.readers import Problem, ReadOptions, lines_before, read_unit

TEXTS = [f"text {number} " * 20 for number in range(50)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()
    (tmp_path / "a.jsonl").write_bytes(lines + b"broken\n")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "c.jsonl.zst").write_bytes(zstd.compress(lines))
    table = pyarrow.table({"text": TEXTS})
    pyarrow.parquet.write_table(table, tmp_path / "d.parquet", row_group_size=20)
    (tmp_path / "e.txt").write_text("\n".join(TEXTS))
    return tmp_path


def test_every_kind_is_read_over_the_network(folder: Path) -> None:
    local = list_inputs(sorted(folder.iterdir()))
    far = list_inputs([f"file://{folder}/*"])
    assert [file.size for file in far] == [file.size for file in local]
    assert [file.path for file in far] == [f"file://{file.path}" for file in local]
    units = cut_into_units(far, "line")
    assert units == cut_into_units(local, "line")
    for unit in units:
        here, there = (
            list(read_unit(files[unit.file], unit, ReadOptions())) for files in (local, far)
        )
        assert here == there
        assert len(here) - sum(isinstance(each, Problem) for each in here) in (50, 20, 10)
        assert lines_before(far[unit.file], unit) == lines_before(local[unit.file], unit)


def test_an_object_that_was_written_anew_is_noticed(folder: Path) -> None:
    (before,) = list_inputs([f"file://{folder}/a.jsonl"])
    assert list_inputs([f"file://{folder}/a.jsonl"]) == [before]
    content = (folder / "a.jsonl").read_bytes()
    (folder / "a.jsonl").unlink()
    (folder / "a.jsonl").write_bytes(content.replace(b"1", b"2"))
    (after,) = list_inputs([f"file://{folder}/a.jsonl"])
    assert after.size == before.size
    assert after.modified != before.modified


@pytest.mark.parametrize("name", ["nothing*.jsonl", "nothing.jsonl"])
def test_what_is_not_there(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "tokenizer.model").touch()
    words = [f"file://{folder}/{name}", "--tokenizer", str(folder / "tokenizer.model")]
    assert preprocess.main([*words, "--output-prefix", str(folder / "out")]) == 2
    assert "nothing" in capsys.readouterr().err


def test_preprocess_writes_the_same_bytes(folder: Path, corpora: Path) -> None:
    made = []
    for name, inputs in (("here", str(folder / "b.jsonl.gz")), ("far", f"file://{folder}/b*")):
        words = [inputs, "--tokenizer", str(corpora / "tokenizer.model"), "--workers", "2"]
        assert preprocess.main([*words, "--output-prefix", str(folder / name)]) == 0
        made.append([(folder / f"{name}.{ending}").read_bytes() for ending in ("bin", "idx")])
    assert made[0] == made[1]
