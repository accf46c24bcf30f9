"""The doctor on this machine, and what it says of machines that are described."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastmix_mega.doctor.commands import run
from fastmix_mega.doctor.findings import as_json, failed, has_failed, ok, skipped, verdict
from fastmix_mega.doctor.machine import findings_of
from fastmix_mega.doctor.searches import processes_for
from tests.launch import fastmix

PROCESS = {
    "rank": 0,
    "host": "node1",
    "device": "cuda:0",
    "python": "3.11.7",
    "torch": "2.13.0",
    "torch_cuda": "13.0",
    "driver": "580.1",
    "cores": 8,
    "open_files": 65536,
    "locked_memory": -1,
    "transformer_engine": "2.10",
    "transformer_engine_error": "",
    "gpu": "NVIDIA H100",
    "capability": "9.0",
    "memory": 80e9,
    "free": 79e9,
    "uuid": "a",
    "nccl": "2.27.3",
}


def told(*changes: dict[str, Any]) -> dict[str, str]:
    """What is said of processes that differ so from a healthy one, by name."""
    everyone = [PROCESS | {"rank": n, "uuid": str(n)} | each for n, each in enumerate(changes)]
    return {f"{each.status} {each.name}": each.text for each in findings_of(everyone)}


def test_a_healthy_machine_is_well() -> None:
    assert all(name.startswith("ok ") for name in told({}, {}))


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        ({"uuid": "0"}, "devices", "several processes have the same GPU"),
        ({"free": 40e9}, "devices", "memory is in use already on ranks [1]"),
        ({"cores": 1}, "cores", "1 usable core(s) for 2 process(es)"),
        ({"open_files": 256}, "open files", "256 a process"),
        ({"transformer_engine": None}, "TransformerEngine", "on some machines only"),
        ({"transformer_engine_error": "No libcudnn"}, "TransformerEngine", "No libcudnn"),
        ({"driver": "535.1"}, "same software", "machines differ in driver"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], name: str, words: str) -> None:
    assert words in told({}, change)[f"failed {name}"]


def test_a_verdict_counts() -> None:
    findings = [ok("first", "well", speed=3), skipped("second", "not here"), failed("third", "ill")]
    assert verdict(findings).splitlines()[-1] == "1 of 3 failed"
    assert has_failed(findings)
    assert not has_failed(findings[:2])
    assert as_json(findings, 1.0)["findings"][0]["details"] == {"speed": 3}


def test_a_command_that_hangs_is_ended() -> None:
    program = (sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(600)")
    done = run([], 3.0, program)
    assert done.code == 124
    assert done.log == "begun"


def test_tiny_searches_take_what_shares_their_batch() -> None:
    assert [processes_for(count) for count in (1, 2, 3, 6, 8, 64)] == [1, 2, 2, 4, 8, 8]


@pytest.mark.distributed
def test_this_machine(settings: dict[str, Any], tmp_path: Path) -> None:
    """All parts through the real launcher, on two processes; every one that applies is well."""
    settings["parallel"] = {"pipeline": 2}
    path, output = tmp_path / "config.yaml", tmp_path / "doctor.json"
    path.write_text(yaml.safe_dump(settings))
    text = fastmix("doctor", str(path), "--nproc", "2", "--output", str(output), timeout=1800)
    assert "all is well" in text
    found = {each["name"]: each for each in json.loads(output.read_text())["findings"]}
    for name in ("group pipeline", "a process raises", "a process is killed", "your configuration"):
        assert found[name]["status"] == "ok"
    for name in ("search, plain, fp32", "search, resumed", "search, another layout"):
        assert found[name]["status"] == "ok"
    assert "point to point" in found["group pipeline"]["text"]
    assert found["your configuration"]["details"]["processes"][0]["tokens_per_second"] > 0


def test_mistakes_are_told(tmp_path: Path) -> None:
    assert "name one" in fastmix("doctor", "train.steps=3", expect=2)
    assert "No such file" in fastmix("doctor", str(tmp_path / "none.yaml"), expect=2)
