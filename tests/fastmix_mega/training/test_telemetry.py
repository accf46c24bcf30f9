from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from fastmix_mega.configuration import parse_config
from fastmix_mega.files import append_jsonl, read_jsonl
from fastmix_mega.training.telemetry import RunLog
from tests.full_disk import files_of_at_most


def test_lines_beyond_the_checkpoint_are_cut(settings: dict[str, Any]) -> None:
    """A resumed run writes them again; none stands twice, and a torn line is gone."""
    config = parse_config(settings)
    run_dir = Path(config.run_dir)
    run_dir.mkdir()
    for step in range(1, 8):
        append_jsonl(run_dir / "metrics.jsonl", {"step": step})
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8')
    RunLog(config, start_step=5, stream=io.StringIO())
    assert [row["step"] for row in read_jsonl(run_dir / "metrics.jsonl")] == [1, 2, 3, 4, 5]


def test_progress_line(settings: dict[str, Any]) -> None:
    config = parse_config(settings)
    Path(config.run_dir).mkdir()
    stream = io.StringIO()
    log = RunLog(config, 0, stream)
    row = {
        "outer_step": 1,
        "step": 8,
        "mixture": [0.1, 0.6, 0.2, 0.1],
        "scores": [0.0] * 4,
        "target_loss": {"near": 1.0},
        "entropy": 1.0,
    }
    log.outer_step(row)
    log.step({"step": 12, "tokens": 1, "loss": 2.5, "source_loss": [None, 1.0, 2.0, 3.0]})
    shown = stream.getvalue()
    assert "step 12/24  loss 2.5000" in shown
    assert "tokens/s" in shown
    assert "mixture: beta 60% gamma 20%" in shown


def test_a_change_of_layout_is_told_and_counted_once(settings: dict[str, Any]) -> None:
    """The start that made it may end before its first checkpoint; a later change is another."""
    config = parse_config(settings)
    Path(config.run_dir).mkdir()
    stream = io.StringIO()
    two, one = {"data": 2, "zero": 1}, {"data": 1, "zero": 1}
    for _ in range(2):
        RunLog(config, 5, stream).layout_changed(two, one)
    log = RunLog(config, 9, stream)
    log.layout_changed(one, two)
    log.step({"step": 12, "tokens": 1, "loss": 2.5, "source_loss": [None, 1.0, 2.0, 3.0]})
    assert read_jsonl(Path(config.run_dir) / "metrics.jsonl")[0]["layout_changes"] == 2
    assert stream.getvalue().count("at another layout after step 5: data 2 to 1\n") == 1


def test_a_full_disk_delays_lines_and_loses_none(settings: dict[str, Any]) -> None:
    config = parse_config(settings)
    Path(config.run_dir).mkdir()
    stream = io.StringIO()
    log = RunLog(config, 0, stream)
    log.event({"step": 1, "kind": "spike"}, "one")
    with files_of_at_most(40):
        log.event({"step": 2, "kind": "spike"}, "two")
        log.event({"step": 3, "kind": "spike"}, "three")
    log.event({"step": 4, "kind": "spike"}, "four")
    rows = read_jsonl(Path(config.run_dir) / "events.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert stream.getvalue().count("the run goes on") == 1


def test_a_hang_is_remembered_when_its_steps_are_done_again(settings: dict[str, Any]) -> None:
    config = parse_config(settings)
    run_dir = Path(config.run_dir)
    run_dir.mkdir()
    append_jsonl(run_dir / "events.jsonl", {"step": 9, "kind": "spike"})
    append_jsonl(run_dir / "events.jsonl", {"step": 9, "kind": "hung"})
    RunLog(config, start_step=5, stream=io.StringIO())
    assert [row["kind"] for row in read_jsonl(run_dir / "events.jsonl")] == ["hung"]
