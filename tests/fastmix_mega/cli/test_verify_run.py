"""`fastmix verify` on a real run: whole, damaged, with a program in it, with links."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fastmix_mega.checkpoint.manifest import read_manifest, record_file
from fastmix_mega.cli import main as cli
from fastmix_mega.configuration import parse_config
from fastmix_mega.methods.registry import method_of
from fastmix_mega.training import trainer
from tests.tiny import tiny_settings

MODEL = "mp_rank_00_model_states.pt"


class Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo must never run",)


@pytest.fixture(scope="module")
def trained(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("verify") / "run"
    settings: dict[str, Any] = tiny_settings(corpora, run) | {"checkpoint": {"every": 1}}
    settings["train"] |= {"steps": 2}
    trainer.run(method_of(parse_config(settings), "train"))
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def verified(run: Path, *words: str, code: int, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert cli.main(["verify", str(run), *words]) == code
    shown = capsys.readouterr()
    return shown.out + shown.err


def pretend(folder: Path, name: str) -> None:
    """Make the manifest agree with a changed file, as anybody can."""
    manifest = read_manifest(folder)
    files = manifest.files | {name: record_file(folder / name)}
    manifest.model_copy(update={"files": files}).write(folder)


def test_a_whole_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "checkpoints" / "step_2" / "universal").mkdir()
    (run / "checkpoints" / "step_2" / "universal" / "a.pt").write_bytes(b"")
    (run / "wandb").mkdir()
    (run / "wandb" / "debug-core.log").symlink_to("/root/.cache/wandb/logs/core-debug.log")
    said = verified(run, code=0, capsys=capsys)
    assert "2 logged steps" in said
    assert "step_1: " in said
    assert "not in its manifest: 1 files (universal/a.pt)" in said
    newest = re.findall(r"SHA-256 ([0-9a-f]{64})", said)[-1]
    verified(run, "--sha256", newest, code=0, capsys=capsys)
    assert f"is not {'0' * 64}" in verified(run, "--sha256", "0" * 64, code=2, capsys=capsys)


def test_a_flipped_bit_and_a_link(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "checkpoints" / "step_1" / MODEL
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    (run / "events.jsonl").unlink(missing_ok=True)
    (run / "events.jsonl").symlink_to("/etc/hostname")
    said = verified(run, code=2, capsys=capsys)
    assert f"{MODEL} has another checksum" in said
    assert "events.jsonl leads out of the run folder" in said
    assert "step_2: " in said


def test_a_program_in_a_checkpoint(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run / "checkpoints" / "step_2"
    torch.save({"module": Attack()}, folder / MODEL)
    pretend(folder, MODEL)
    assert "could run a program" in verified(run, code=2, capsys=capsys)


def test_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no config.yaml" in verified(tmp_path, code=2, capsys=capsys)
