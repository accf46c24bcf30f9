"""benchmarks/gpu.py ends well on hostcuda: two of its parts; all of them with

python -m benchmarks.gpu --tiny --program="-m tests.hostcuda.program"
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import ended_badly
from tests.launch import clean_environment

PARTS = ("150M", "one rank of 7B, TP8")


@pytest.mark.distributed
def test_parts_write_what_they_find(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--output", str(output)]
    command += ["--program=-m tests.hostcuda.program", "--parts", *PARTS]
    done = subprocess.run(
        command,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    found = json.loads(output.read_text())
    assert list(found) == list(PARTS)
    assert found["150M"]["tokens_per_second"] > 0
    assert all(found[part]["planned_bytes"] > 0 for part in PARTS)


def test_a_value_that_differs_is_a_failure() -> None:
    well = {"exit_code": 0, "search, plain, fp32": {"status": "ok"}, "losses": [1.0]}
    assert not ended_badly(well)
    assert ended_badly(well | {"exit_code": 1})
    assert ended_badly(well | {"search, resumed": {"status": "failed"}})
