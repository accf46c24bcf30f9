"""A training step does not wait for the GPU more often than DeepSpeed itself makes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hostcuda.cases import Case, settings_of
from tests.launch import HOST_CUDA, forked

BOUNDS = {"_train_step": 3.0, "before_step": 4.0, "after_step": 4.0, "_log_step": 4.0}
"""Waits in each of them. Of a training step: DeepSpeed's look at the gradient's norm. Of an outer
step, whatever the number of micro-batches: weights and places of the targets, their losses, sums
and mixture."""
ONCE = ("rotary_pos_embedding.py", "_tokens")
"""What is computed when it is first needed, and kept."""


@pytest.mark.distributed
@pytest.mark.parametrize(
    "case",
    [
        Case(),
        Case(1, {"search": {"scores": "all"}}),
        Case(2, {"parallel": {"context": 2}, "search": {"score_tokens": 0.5}}, chat=True),
        Case(2, {"parallel": {"pipeline": 2}, "precision": "bf16"}),
    ],
    ids=["text", "hooks", "conversations, CP2", "PP2, bf16"],
)
def test_waits_for_the_gpu_are_few(case: Case, corpora: Path, tmp_path: Path) -> None:
    settings = settings_of(case, corpora, tmp_path / "run") | {"run_dir": str(tmp_path / "run")}
    settings["log"]["every"] = 6
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    words = ("tests.hostcuda.waits", str(tmp_path / "waits.json"), "search")
    forked(
        "python",
        *words,
        str(tmp_path / "config.yaml"),
        processes=case.processes,
        machine=HOST_CUDA,
    )
    found: dict[str, Any] = json.loads((tmp_path / "waits.json").read_text())
    every = settings["search"]["every"]
    for phase, bound in BOUNDS.items():
        waits = {
            place: count
            for place, count in found[phase]["waits"].items()
            if not any(part in place for part in ONCE)
        }
        times = found[phase]["calls"] / (every if phase in ("before_step", "after_step") else 1)
        assert not [place for place in waits if "synchronize" in place], waits
        assert sum(waits.values()) <= bound * times, waits
