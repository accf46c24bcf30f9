from __future__ import annotations

import stat
from pathlib import Path

import pytest

from fastmix_mega.files import (
    append_jsonl,
    open_atomic,
    read_jsonl,
    remove_unfinished,
    write_atomic,
    write_json,
)
from tests.full_disk import files_of_at_most


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"x": float("nan")})
    assert path.read_text() == '{\n  "x": 1\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with open_atomic(path):
        (left,) = tmp_path.iterdir()
    others = [path, *(tmp_path / name for name in (".a.json.settings.yaml", ".b.json.abcdefgh"))]
    for each in (*others, left):
        each.write_bytes(b"x")
    remove_unfinished(path)
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_results_are_readable_by_the_team_and_writable_by_the_owner(tmp_path: Path) -> None:
    write_atomic(tmp_path / "deep" / "a", "text")
    assert stat.S_IMODE((tmp_path / "deep" / "a").stat().st_mode) == 0o644


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    append_jsonl(path, {"step": 1})
    append_jsonl(path, {"step": 2})
    path.write_bytes(path.read_bytes() + b'{"step": 3')
    assert read_jsonl(path) == [{"step": 1}, {"step": 2}]


def test_a_line_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    append_jsonl(path, {"step": 1})
    with files_of_at_most(20), pytest.raises(OSError, match="No space left"):
        append_jsonl(path, {"step": 2})
    append_jsonl(path, {"step": 3})
    assert read_jsonl(path) == [{"step": 1}, {"step": 3}]


def test_a_line_that_is_nested_too_deeply_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("[" * 100_000 + "\n")
    with pytest.raises(ValueError, match="nested too deeply"):
        read_jsonl(tmp_path / "rows.jsonl")
