"""Old results of one file a run come out as the same records."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from fastmix_mega.errors import UserError
from fastmix_mega.files import write_json
from research.convert_results import convert
from research.fork_records import fork_records
from research.quality.records import Record, Records
from research.study_file import StudyFile
from research.transfer import read_records

FAMILY = {"sources": {"one": 5}, "targets": {"text": 3}}
RUNS = [
    Record("search", "fastmix.text", 1, [0.1 + 0.2], details={"gains": [1.5]}),
    Record("train", "uniform", 101, [1.0], {"text": 1 / 3}),
]
FORK: dict[str, Any] = {
    "size": "tiny",
    "points": [
        {"step": 1, "repetitions": [{"effects": [0.1]}, {"effects": [0.2]}]},
        {"step": 2, "repetitions": [{"effects": [0.1]}]},
    ],
    "seconds": 12.5,
}


def write_old(results: Path) -> None:
    family = results / "mixture_quality" / "family"
    write_json(family / "family.json", FAMILY)
    write_json(family / "searches" / "fastmix.text@1.json", asdict(RUNS[0]))
    write_json(family / "trainings" / "uniform@101.json", asdict(RUNS[1]))
    write_json(results / "transfer" / "search_a_1.json", {"job": "search_a_1", "seconds": 2.5})
    for name in ("tiny", "tiny_seed_2"):
        write_json(results / "fork_test" / f"{name}.json", FORK)


def check(results: Path) -> None:
    assert Records(results / "mixture_quality" / "family.jsonl", FAMILY).all() == RUNS
    jobs = read_records(StudyFile(results / "transfer.jsonl"))
    assert jobs == {"search_a_1": {"job": "search_a_1", "seconds": 2.5}}
    forks = fork_records(StudyFile(results / "fork_test.jsonl"))
    assert forks == {"tiny": FORK, "tiny_seed_2": FORK}
    assert not list(results.rglob("*.json"))
    assert sorted(path.name for path in results.iterdir() if path.is_dir()) == ["mixture_quality"]


def test_records_are_the_same(tmp_path: Path) -> None:
    write_old(tmp_path)
    assert convert(tmp_path) == 6
    check(tmp_path)
    assert convert(tmp_path) == 0


def test_an_interrupted_conversion_goes_on(tmp_path: Path) -> None:
    """The lines are there already, the files are still there."""
    write_old(tmp_path)
    convert(tmp_path)
    write_old(tmp_path)
    convert(tmp_path)
    check(tmp_path)


def test_two_results_of_one_run_are_refused(tmp_path: Path) -> None:
    write_old(tmp_path)
    convert(tmp_path)
    write_old(tmp_path)
    other = copy.deepcopy(asdict(RUNS[1])) | {"cost": 2.0}
    path = tmp_path / "mixture_quality" / "family" / "trainings" / "uniform@101.json"
    path.write_text(json.dumps(other))
    with pytest.raises(UserError, match=r"another result than .*uniform@101.json"):
        convert(tmp_path)
    assert path.is_file()
