"""A place for a result is refused before any work if it cannot be written, or is an input."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastmix_mega.errors import UserError
from fastmix_mega.output_file import ResultFile, require_output_file


def test_a_new_file_in_a_new_folder_and_an_older_result(tmp_path: Path) -> None:
    new = tmp_path / "a" / "b.json"
    assert require_output_file(str(new)) == new
    old = tmp_path / "old.json"
    old.write_text("# Data mixture by fastmix-mega 0.1.0")
    assert require_output_file(old, [tmp_path / "missing", tmp_path]) == old
    assert old.read_text().startswith("# Data")
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


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("surface.json", "{}", "a file of the run"),
        ("mixture.json", "{}", "a file of the run"),
        ("web.bin", "x", "a token file"),
        ("web.idx", "x", "a token file"),
        ("own.model", "x", "a tokenizer"),
        ("tokenizer.json", "{}", "a tokenizer"),
        ("my.yaml", "sources: []\ntokenizer: own.model\n", "a configuration"),
    ],
)
def test_files_that_no_result_replaces(
    name: str, content: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "run.json").write_text("{}")
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(UserError, match=f"is {reason}.*, which would be overwritten"):
        require_output_file(path)
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mixture.json", '{"schema": "fastmix-mixture/1"}'),  # In a folder that is no run's.
        ("blend.yaml", "# Data mixture by fastmix-mega 0.1.0\nsources:\n- source_name: web\n"),
        ("long.json", "1" * 200_000 + "by fastmix-mega"),
        ("empty.txt", ""),
    ],
)
def test_an_older_result_is_replaced(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert require_output_file(tmp_path / name) == tmp_path / name


@pytest.mark.parametrize("name", ["notes.md", "sources.csv", "train.json", "mixture.json"])
def test_other_peoples_files_stay_unless_the_user_says_so(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("web,0.5\n")
    with pytest.raises(UserError, match=r"no earlier result.*--overwrite"):
        require_output_file(path)
    assert require_output_file(ResultFile(path, overwrite=True)) == path
    with pytest.raises(UserError, match="is the input"):
        require_output_file(ResultFile(path, overwrite=True), [path])
    # Where the result itself cannot say whose it is, the notes beside it do.
    (tmp_path / f"{name}.notes.txt").write_text("Data mixture by fastmix-mega 0.1.0, from x\n")
    assert require_output_file(path) == path
