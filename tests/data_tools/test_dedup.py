from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from data_tools import dedup

WORDS = [f"word{number}" for number in range(400)]


def story(seed: int, length: int = 120) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def write(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def test_copies_near_copies_and_excerpts_are_removed_and_listed(tmp_path: Path) -> None:
    target = [story(1), story(2, 600)]
    changed = story(1).split()
    changed[10] = changed[60] = "other"
    inside = " ".join(story(2, 600).split()[200:300])
    around = f"{story(50)} {story(1)} {story(51)}"
    sources = [story(9), story(1).upper(), " ".join(changed), inside, around, story(10)]
    output = tmp_path / "clean.jsonl"
    words = ["--targets", write(tmp_path / "t.jsonl", target), "--output", str(output)]
    assert dedup.main([*words, "--sources", write(tmp_path / "s.jsonl", sources)]) == 0

    kept = [json.loads(line)["text"] for line in output.read_text().splitlines()]
    assert kept == [story(9), story(10)]
    listed = [json.loads(line) for line in Path(f"{output}.removed.jsonl").read_text().splitlines()]
    assert [row["source"].rpartition(":")[2] for row in listed] == ["2", "3", "4", "5"]
    assert [row["target"].rpartition(":")[2] for row in listed] == ["1", "1", "2", "1"]
    assert listed[0]["share"] == 1.0
    assert 0.8 < listed[1]["share"] < 1.0


def test_share_decides(tmp_path: Path) -> None:
    half = " ".join(story(1).split()[:60]) + " " + story(77, 60)
    source = write(tmp_path / "s.jsonl", [half])
    target = write(tmp_path / "t.jsonl", [story(1)])
    words = ["--targets", target, "--sources", source, "--output", str(tmp_path / "o.jsonl")]
    for share, kept in (("0.3", 0), ("0.7", 1)):
        assert dedup.main([*words, "--share", share, "--overwrite"]) == 0
        assert len((tmp_path / "o.jsonl").read_text().splitlines()) == kept


def test_a_bad_line_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "s.jsonl"
    source.write_text('{"text": "good"}\n{\n')
    target = write(tmp_path / "t.jsonl", [story(1)])
    output = tmp_path / "o.jsonl"
    words = ["--targets", target, "--sources", str(source), "--output", str(output)]
    assert dedup.main(words) == 2
    assert "s.jsonl:2: not JSON" in capsys.readouterr().err
    assert not output.exists()
