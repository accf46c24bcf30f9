"""A place for a result is refused before any work if it cannot be written, or is an input."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastmix_mega.errors import UserError
from fastmix_mega.output_file import require_output_file


def test_a_new_file_in_a_new_folder_and_an_older_result(tmp_path: Path) -> None:
    new = tmp_path / "a" / "b.json"
    assert require_output_file(str(new)) == new
    old = tmp_path / "old.json"
    old.write_text("old")
    assert require_output_file(old, [tmp_path / "missing", tmp_path]) == old
    assert old.read_text() == "old"
    assert not new.parent.exists()


def test_an_input_under_any_name(tmp_path: Path) -> None:
    given = tmp_path / "given.json"
    given.write_text("{}")
    (tmp_path / "link").symlink_to(given)
    os.link(given, tmp_path / "hard")
    for name in ("given.json", "link", "hard", "x/../given.json"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(UserError, match="is the input"):
            require_output_file(tmp_path / name, [given])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (".", "it is a folder"),
        ("file/a.json", "is a file, not a folder"),
        ("n" * 300, "File name too long"),
    ],
)
def test_places_that_are_none(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=why):
        require_output_file(tmp_path / name)
