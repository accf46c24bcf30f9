"""Faults put into real runs on two processes, and what the guards make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fastmix_mega.checkpoint.store import checkpoint_steps
from fastmix_mega.files import read_jsonl
from tests.launch import forked

pytestmark = pytest.mark.distributed


def write(settings: dict[str, Any], tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def test_a_loss_that_is_no_number(settings: dict[str, Any], tmp_path: Path) -> None:
    """From step 10 on, on rank 1: skipped, traced to the sample, stopped after three; resumable."""
    settings["guards"] = {"max_skipped": 3}
    config = write(settings, tmp_path)
    code, shown = forked("search", config, processes=2, expect=None, fault="nan:1:10")
    assert code == 1
    assert "3 steps had a gradient that is not finite" in shown
    assert "Traceback" not in shown
    events = read_jsonl(tmp_path / "run" / "events.jsonl")
    assert [event["step"] for event in events] == [10, 11, 12]
    assert all(len(event["sequences"]) == 1 for event in events)
    assert {event["sequences"][0]["rank"] for event in events} == {1}
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == [12]
    forked("search", config, "guards.max_skipped=9", processes=2)
    rows = read_jsonl(tmp_path / "run" / "history.jsonl")
    assert len(rows) == 5
    assert read_jsonl(tmp_path / "run" / "metrics.jsonl")[-1]["step"] == 24


def test_a_target_whose_loss_is_no_number(settings: dict[str, Any], tmp_path: Path) -> None:
    config = write(settings, tmp_path)
    code, shown = forked("search", config, processes=2, expect=None, fault="destroy:1:3")
    assert code == 1
    assert "the loss of the target near, far is not a finite number" in shown
    assert "Traceback" not in shown
    assert len(read_jsonl(tmp_path / "run" / "history.jsonl")) == 2


def test_a_mixture_that_drifts_is_caught(settings: dict[str, Any], tmp_path: Path) -> None:
    code, shown = forked(
        "search", write(settings, tmp_path), processes=2, expect=None, fault="drift:1:9"
    )
    assert code == 1
    assert "lost step with each other" in shown
    assert "rank 1: step 9" in shown


def test_what_goes_wrong_is_told(settings: dict[str, Any], tmp_path: Path) -> None:
    """A spike at step 18, a collapse at outer step 2, noise at outer step 4: told once each."""
    settings["search"]["decay"] = 0.0
    faults = "spike:all:18,collapse:0:2,doubt:0:4"
    code, shown = forked(
        "search", write(settings, tmp_path), processes=2, expect=None, fault=faults
    )
    assert code == 0
    events = read_jsonl(tmp_path / "run" / "events.jsonl")
    by_kind = {event["kind"]: event for event in events}
    assert len(events) == len(by_kind) == 3
    spike = by_kind["spike"]
    assert spike["step"] == 18
    assert spike["z"] > 5
    rows = {row["step"]: row for row in read_jsonl(tmp_path / "run" / "metrics.jsonl")}
    assert list(spike["source_loss"].values()) == rows[18]["source_loss"]
    assert "step 18: the loss spiked" in shown
    assert by_kind["collapsed"]["outer_step"] == 2
    assert by_kind["collapsed"]["source"] == "alpha"
    assert "the mixture has collapsed" in shown
    assert by_kind["doubtful"]["outer_step"] == 4
    assert by_kind["doubtful"]["scored"] == 4


def test_a_hung_rank_is_named_with_its_stack(settings: dict[str, Any], tmp_path: Path) -> None:
    settings["guards"] = {"hang_minutes": 0.05}
    code, shown = forked(
        "search", write(settings, tmp_path), processes=2, expect=None, fault="hang:1:9"
    )
    assert code == 1
    assert "rank 1 is stuck (the others wait for it in a collective)" in shown
    assert "stack of rank 1" in shown
    assert "in hang" in shown
    (event,) = read_jsonl(tmp_path / "run" / "events.jsonl")
    assert (event["kind"], event["step"], event["ranks"]) == ("hung", 8, [1])
    assert event["places"][0]["waits"]
