"""Lines are whole or not there, whoever is killed while writing."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmix_mega.errors import UserError
from research.study_file import StudyFile

ROWS = [{"name": "first", "loss": 0.1}, {"name": "zweite", "loss": 1 / 3}, {"name": "third"}]


def test_what_is_appended_is_read_bit_for_bit(tmp_path: Path) -> None:
    file = StudyFile(tmp_path / "new" / "study.jsonl")
    assert file.rows() == []
    for row in ROWS:
        file.append(row)
    assert StudyFile(file.path).rows() == ROWS


@given(cut=st.integers(min_value=0, max_value=200))
def test_after_a_tear_the_next_line_stands_alone(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    """Cut anywhere: whole lines stay, the torn one is done again."""
    path = tmp_path_factory.mktemp("torn") / "study.jsonl"
    content = "".join(json.dumps(row) + "\n" for row in ROWS).encode()[:cut]
    path.write_bytes(content)
    whole = ROWS[: content.count(b"\n")]
    file = StudyFile(path)
    assert file.rows() == whole
    file.append({"name": "again"})
    assert file.rows() == [*whole, {"name": "again"}]


def test_a_damaged_line_is_no_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "study.jsonl"
    path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(UserError, match=r"study.jsonl, line 2 is no JSON"):
        StudyFile(path).rows()


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the results"):
        StudyFile(tmp_path).rows()


def write_for_ever(path: Path, writer: int) -> None:
    for number in range(10**9):
        StudyFile(path).append({"writer": writer, "number": number, "filler": "x" * 500})


@pytest.mark.distributed
def test_killed_writers_lose_nothing_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "study.jsonl"
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=write_for_ever, args=(path, number)) for number in range(3)]
    for writer in writers:
        writer.start()
    limit = time.monotonic() + 60
    while len(StudyFile(path).rows()) < 60 and time.monotonic() < limit:
        time.sleep(0.01)
    for writer in writers:
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    StudyFile(path).append({"writer": 3, "number": 0})
    rows = StudyFile(path).rows()
    assert len(rows) > 60
    for number in range(4):
        found = [row["number"] for row in rows if row["writer"] == number]
        assert found == list(range(len(found)))
