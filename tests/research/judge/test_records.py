from __future__ import annotations

from pathlib import Path

import pytest

from fastmix_mega.errors import UserError
from research.judge.records import Record, Records


def test_records_are_there_after_the_next_opening_and_appended_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "study.jsonl"
    first = Record("train", "plain", "uniform", 101, [0.5, 0.5], {"unseen": 2.5}, {"unseen": 3.0})
    second = Record("search", "plain", "trunk_body", 1, [0.5, 0.5], {}, history=[{"step": 16}])
    records = Records(path)
    assert records.get("train", "plain", "uniform", 101) is None
    records.add(first)
    Records(path).add(second)
    again = Records(path)
    assert again.get("train", "plain", "uniform", 101) == first
    assert again.get("search", "plain", "trunk_body", 1) == second
    assert list(again.of("train", "plain")) == [first]
    assert again.get("train", "plain", "uniform", 102) is None


def test_runs_of_other_corpora_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.jsonl"
    identity = {"sources": {"python": 1000}, "tokenizer": "abc"}
    Records(path).belong_to("plain", identity)
    Records(path).belong_to("plain", dict(identity))
    Records(path).belong_to("plausible", {"sources": {}, "tokenizer": "abc"})
    with pytest.raises(UserError, match="differ in sources"):
        Records(path).belong_to("plain", {"sources": {"python": 1001}, "tokenizer": "abc"})
