"""Bad lines are counted by file, and a file that is mostly bad ends the run."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from data_tools import inputs
from fastmix_mega.data.indexed_manifest import read_manifest
from tests.data_tools.conftest import Tokenize

GOOD = b'{"text":"ok"}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", GOOD + b"bad\nbad\n", "2 of its 3 lines are bad, the first is line 2"),
        ("a.jsonl.gz", gzip.compress(GOOD + b"bad\nbad\n", mtime=0), "2 of its 3 lines are bad"),
        ("cr.jsonl", GOOD.replace(b"\n", b"\r") * 2, "1 of its 1 lines are bad"),
        ("one.json", b'{"data": [' + GOOD.strip() + b"]}", "1 of its 1 lines are bad"),
        ("long.jsonl", GOOD * 3 + b"[" + GOOD.strip() * 50 + b"]\n", "bytes are in lines that are"),
    ],
)
def test_a_file_that_is_mostly_bad(
    tokenize: Tokenize,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes,
    message: str,
) -> None:
    Path(name).write_bytes(content)
    Path("good.jsonl").write_bytes(GOOD * 100)
    assert tokenize("good.jsonl", name, "--max-bad", "9") == 2
    assert message in capsys.readouterr().err
    assert not Path("out.bin").exists()
    if "one.json" not in name and "cr" not in name:
        assert tokenize("good.jsonl", name, "--max-bad", "9", "--max-bad-share", "1") == 0


def test_over_many_units_and_at_the_end(
    tokenize: Tokenize, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is judged when all of it was read, not by a part that is bad."""
    monkeypatch.setattr(inputs, "SMALLEST_RANGE", 40)
    Path("a.jsonl").write_bytes(b"bad\n" * 20 + GOOD * 21)
    Path("b.jsonl").write_bytes(GOOD * 5 + b"bad\n\n\n")
    assert tokenize("a.jsonl", "b.jsonl", "--max-bad", "50") == 0
    said = capsys.readouterr().err
    assert "21 bad lines, listed in out.bad.jsonl: a.jsonl 20, b.jsonl 1" in said
    assert "2 blank lines were passed over" in said
    manifest = read_manifest("out")
    assert manifest is not None
    assert manifest.made_by["bad_lines_by_file"] == {"a.jsonl": 20, "b.jsonl": 1}
    Path("c.jsonl").write_bytes(b"bad\n" * 22 + GOOD * 21)
    assert tokenize("c.jsonl", "--max-bad", "50", out="c") == 2
