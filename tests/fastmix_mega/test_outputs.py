"""What a result may replace, and what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastmix_mega.errors import UserError
from fastmix_mega.outputs import require_output_file


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
        ("mixture.json", "{}"),  # In a folder that is no run's.
        ("blend.yaml", "sources:\n- source_name: web\n"),  # An export, of OLMo-core.
        ("blend.txt", "1.0 web\n"),
    ],
)
def test_an_older_result_is_replaced(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert require_output_file(tmp_path / name) == tmp_path / name
