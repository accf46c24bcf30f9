"""What tests/identity.sh calls a difference, and that it sees one in real runs."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import identity
from tests.identity import Comparison
from tests.launch import clean_environment

ROOT = Path(__file__).parent.parent
ROW = {"step": 3, "loss": 0.1, "scores": [1.5, None], "seconds": 1.0, "kind": "doubtful"}


def differences(directory: Path, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    for name, row in (("old", old), ("new", new)):
        (directory / name / "run").mkdir(parents=True)
        (directory / name / "run" / "history.jsonl").write_text(json.dumps(row) + "\n")
    compared = Comparison((str(directory / "old"), str(directory / "new")))
    compared.folders(directory / "old", directory / "new")
    return compared.differences


def test_times_and_folders_may_differ(tmp_path: Path) -> None:
    old = ROW | {"path": f"{tmp_path}/old/run/swarm", "warnings": ["4% of 3 differ"]}
    new = ROW | {"path": f"{tmp_path}/new/run/swarm", "warnings": ["of 4% see 3"], "seconds": 2.0}
    assert not differences(tmp_path, old, new)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"loss": math.nextafter(0.1, 1)}, "loss: 0.1 -> 0.10000000000000002"),
        ({"step": 3.0}, "step: 3 -> 3.0"),
        ({"scores": [1.5, 0.0]}, "scores[1]: None -> 0.0"),
        ({"scores": [1.5]}, "scores: 2 entries -> 1 entries"),
        ({"kind": "spike"}, "kind: 'doubtful' -> 'spike'"),
        ({"more": 1}, "more: only in the new file"),
        ({"warnings": ["5%"]}, "warnings: only in the new file"),
    ],
)
def test_everything_else_may_not(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    assert differences(tmp_path, ROW, ROW | change) == [f"run/history.jsonl:1 {told}"]


def test_a_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "events.jsonl").write_text("{}\n")
    assert differences(tmp_path, ROW, ROW) == ["events.jsonl: only in the new runs"]


def test_names_may_change_as_the_tables_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(identity.RENAMED_KEYS, "loss", "mean_loss")
    monkeypatch.setitem(identity.RENAMED_WORDS, "doubtful", "noisy")
    new = {"mean_loss" if key == "loss" else key: value for key, value in ROW.items()}
    assert not differences(tmp_path, ROW, new | {"kind": "noisy"})


@pytest.mark.distributed
def test_another_checkout_is_told_from_this_one(tmp_path: Path) -> None:
    """A copy whose uniform mixture is not uniform."""
    other = tmp_path / "other"
    for folder in ("fastmix_mega", "tests"):
        shutil.copytree(ROOT / folder, other / folder)
    path = other / "fastmix_mega" / "mixture" / "file.py"
    text = path.read_text()
    assert "1.0 / len(names))" in text
    path.write_text(text.replace("1.0 / len(names))", "0.9 / len(names)) + [0.1, 0, 0, 0]"))
    done = subprocess.run(
        [ROOT / "tests" / "identity.sh", ROOT, other, "--only", "uniform", "proportional"],
        env=clean_environment() | {"PYTHON": sys.executable, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 1, done.stdout
    assert "sources[0] weight: 0.25 -> 0.32" in done.stdout
    assert "proportional     identical" in done.stdout
