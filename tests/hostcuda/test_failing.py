"""When one process fails under NCCL, its traceback is seen at once, and the others do not wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.launch import HOST_CUDA, forked


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("raise:1:3", 1, "rank 1 failed:\nTraceback (most recent call last)"),
        ("refuse:1:3", 1, "rank 1 alone stops: a mistake that one process alone has found"),
        ("refuse:all:3", 2, "fastmix search: a mistake that one process alone has found"),
    ],
)
def test_an_error_is_told(
    fault: str, code: int, words: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    """Here leaving NCCL's world waits for the others, who wait for the one that failed."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    _, output = forked(
        "search", str(path), processes=2, fault=fault, expect=code, machine=HOST_CUDA
    )
    assert words in output
    if fault.startswith("raise"):
        assert "CUDA out of memory" in output


@pytest.mark.distributed
def test_more_processes_than_gpus_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    for verb in ("check", "search"):
        _, output = forked(
            verb,
            str(path),
            "--nproc",
            "2",
            expect=2,
            machine=HOST_CUDA,
            variables={"HOSTCUDA_DEVICES": "1"},
        )
        assert "2 processes cannot share this machine's 1 GPU(s)" in output
    # As a launcher of another kind would start them.
    _, output = forked(
        "search",
        str(path),
        processes=2,
        expect=2,
        machine=HOST_CUDA,
        variables={"HOSTCUDA_DEVICES": "1"},
    )
    assert "has no GPU" in output
