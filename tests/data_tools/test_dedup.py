from __future__ import annotations

import datetime
import gzip
import json
import random
import unicodedata
from pathlib import Path

import pyarrow
import pyarrow.parquet
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


def run(tmp_path: Path, source: list[str], target: list[str], *more: str) -> list[str]:
    """The texts of the source that stay."""
    words = ["--targets", write(tmp_path / "t.jsonl", target)]
    words += ["--sources", write(tmp_path / "s.jsonl", source)]
    output = tmp_path / "o.jsonl"
    assert dedup.main([*words, "--output", str(output), "--overwrite", *more]) == 0
    return [json.loads(line)["text"] for line in output.read_text().splitlines()]


CHINESE = "混合语料的比例决定了模型学到什么东西因此需要仔细地选择每一个来源的份额"
THAI = "ภาษาไทยไม่มีช่องว่างระหว่างคำดังนั้นการเปรียบเทียบต้องดูทีละตัวอักษร"


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (CHINESE, "前言。" + CHINESE + "结尾说明。"),
        (CHINESE[:-6] + "另外的结尾", CHINESE),
        (THAI, "คำนำ " + THAI + " จบ"),
        (
            "これはとても長い文章なので空白がありません",
            "「これはとても長い文章なので空白がありません」",
        ),
        ("café résumé naïve", unicodedata.normalize("NFD", "café résumé naïve")),
        ("ｆｕｌｌ ｗｉｄｔｈ letters", "full width letters"),
        ("STRASSE eins zwei", "straße eins zwei"),
        ("soft\u00adhyphen in\u200b a text", "softhyphen in a text"),
        ("!!! ??? --- *** +++ ///", "!!! ??? --- *** +++ ///"),
        ("🙂🙃🙂 👍", "🙂🙃🙂👍"),
    ],
)
def test_copies_in_any_script_and_form(tmp_path: Path, source: str, target: str) -> None:
    others = [
        "完全不同的另一段文字讲的是天气和晚饭",
        "quite another text of other words",
        "=== ###",
    ]
    assert run(tmp_path, [source, *others], [target]) == others


def test_all_fields_stay(tmp_path: Path) -> None:
    """Lines as they were read; rows of tables as JSON."""
    lines = [
        '{"id": 1,  "body":"a text that nobody has", "score":NaN, "deep":{"x":[1,2.50]}}',
        '{"body":"another text of many words","license":"mit"}',
    ]
    (tmp_path / "s.jsonl").write_text(f"{lines[0]}\n\n{lines[1]}\n")
    target = write(tmp_path / "t.jsonl", ["quite other words than these"])
    (tmp_path / "b.jsonl").write_text(Path(target).read_text().replace("text", "body"))
    words = ["--targets", str(tmp_path / "b.jsonl"), "--text-key", "body"]
    output = tmp_path / "o.jsonl.gz"
    given = ["--sources", str(tmp_path / "s.jsonl"), "--output", str(output)]
    assert dedup.main([*words, *given]) == 0
    assert gzip.decompress(output.read_bytes()).decode() == f"{lines[0]}\n{lines[1]}\n"
    rows = [{"id": 7, "body": "a row", "when": datetime.date(2026, 1, 2), "score": float("nan")}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "s.parquet")
    output = tmp_path / "p.jsonl"
    given = ["--sources", str(tmp_path / "s.parquet"), "--output", str(output)]
    assert dedup.main([*words, *given]) == 0
    found = '{"id":7,"body":"a row","when":"2026-01-02","score":NaN}\n'
    assert output.read_text() == found
    # What would not be JSON lines is not called so.
    assert dedup.main([*words, *given[:2], "--output", str(tmp_path / "o.parquet")]) == 2


def test_blank_lines_and_few_bad_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "book.txt").write_text("First paragraph of a book.\n\nSecond one of it.\n")
    book, output = str(tmp_path / "book.txt"), str(tmp_path / "o.jsonl")
    target = write(tmp_path / "t.jsonl", ["nothing of that"])
    words = ["--sources", book, "--targets", target, "--output", output]
    assert dedup.main(words) == 0
    assert "1 blank lines" in capsys.readouterr().err
    (tmp_path / "book.txt").write_bytes(b"one\n\xff\ntwo\n")
    assert dedup.main([*words, "--overwrite"]) == 2
    assert "book.txt:2: not UTF-8" in capsys.readouterr().err
    assert dedup.main([*words, "--overwrite", "--max-bad", "1"]) == 0
    (tmp_path / "book.txt").write_text("\n")
    assert dedup.main([*words, "--overwrite"]) == 2
    assert "the sources hold no document" in capsys.readouterr().err
