"""Searches and trainings on CUDA's paths give what they give on the CPU."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from fastmix_mega.files import read_jsonl
from tests.hostcuda.cases import DAILY, Case, differences, problems, settings_of
from tests.launch import CPU, HOST_CUDA, column, forked, run_config


@pytest.mark.distributed
@pytest.mark.parametrize("name", DAILY)
def test_gives_what_the_cpu_gives(name: str, corpora: Path, tmp_path: Path) -> None:
    case = DAILY[name]
    found = differences(case, corpora, tmp_path)
    assert not problems(case, found), found


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("precision", "after", "tolerance"),
    [("fp32", (2, {"tensor": 2}), 1e-5), ("bf16", (1, {}), 2e-2)],
    ids=["fp32, DP2-TP2", "bf16, DP2-1"],
)
def test_goes_on_with_the_same_and_with_another_layout(
    precision: str,
    after: tuple[int, dict[str, Any]],
    tolerance: float,
    corpora: Path,
    tmp_path: Path,
) -> None:
    """The second half of a run: from its checkpoint as it was, on another layout, and evaluated."""
    case = Case(2, {"precision": precision, "checkpoint": {"every": 6}})
    settings = settings_of(case, corpora, tmp_path)
    whole = run_config("search", settings, tmp_path / "whole", 2, machine=HOST_CUDA)
    for name, (processes, parallel) in {"same": (2, {}), "other": after}.items():
        shutil.copytree(whole, tmp_path / name / "run")
        shutil.rmtree(tmp_path / name / "run" / "checkpoints" / "step_12")
        given = settings | {"parallel": parallel}
        again = run_config("search", given, tmp_path / name, processes, machine=HOST_CUDA)
        steps = [row["loss"] for row in read_jsonl(again / "metrics.jsonl") if "loss" in row]
        expected = column(whole, "metrics.jsonl", "loss")
        assert steps[6:] == pytest.approx(expected[6:].tolist(), rel=tolerance)
    cpu, cuda = (
        _losses(forked("eval", str(whole), machine=machine)[1]) for machine in (CPU, HOST_CUDA)
    )
    assert len(cpu) == len(settings["targets"])
    assert cuda == pytest.approx(cpu, rel=tolerance)


def _losses(table: str) -> list[float]:
    return [float(line.split()[2]) for line in table.splitlines() if " target " in line]
