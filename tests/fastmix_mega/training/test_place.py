from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastmix_mega.training.place import PlaceFile, RunPlace, read_place, restarts_of


def test_the_launcher_reads_where_a_process_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTMIX_PLACES", str(tmp_path))
    monkeypatch.setenv("RANK", "3")
    assert read_place(tmp_path, 3, "runs/a") == RunPlace("runs/a", 0, "")
    place = PlaceFile("runs/a/swarm/01")
    place.write(4, "a long name of what comes next")
    place.write(5, "checkpoint")
    found = read_place(tmp_path, 3, "runs/a")
    assert found == RunPlace("runs/a/swarm/01", 5, "checkpoint")
    assert str(found) == "after step 5, in checkpoint"


def test_restarts_are_those_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"run_dir": name, "step": 1, "id": name} for name in ("runs/a", "runs/b")]
    monkeypatch.setenv("FASTMIX_RESTARTS", json.dumps(rows))
    assert restarts_of("runs/b", 7) == rows[1:]
    # Of a lost node nobody knows where the run was.
    monkeypatch.setenv("FASTMIX_RESTARTS", json.dumps([{"run_dir": "runs/b", "id": "node"}]))
    assert restarts_of("runs/b", 7) == [{"run_dir": "runs/b", "step": 7, "id": "node"}]


def test_another_launcher_tells_their_number_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTMIX_RESTARTS", raising=False)
    assert restarts_of("runs/a", 7) == []
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    assert restarts_of("runs/a", 7) == [{"step": 7, "kind": "restarted", "id": "job 2"}]
