"""Damaged checkpoints and full disks in real runs (kills: tests/benchmarks)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fastmix_mega.checkpoint.manifest import DamagedCheckpoint, problems, read_manifest
from fastmix_mega.checkpoint.store import require_whole
from tests.launch import column, forked, run_config
from tests.tiny import tiny_settings

pytestmark = pytest.mark.distributed


def saving(settings: dict[str, Any], run_dir: Path) -> dict[str, Any]:
    checkpoint = {"every": 5, "keep": 2, "final": False}
    return settings | {"checkpoint": checkpoint, "run_dir": str(run_dir)}


def write(settings: dict[str, Any], directory: Path) -> str:
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


@pytest.fixture(scope="module")
def whole(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on two processes; copy it before it is changed."""
    directory = tmp_path_factory.mktemp("whole")
    settings = saving(tiny_settings(corpora, directory / "run"), directory / "run")
    return run_config("search", settings, directory, processes=2)


def same(run_dir: Path, whole: Path) -> None:
    for file, key in (("metrics.jsonl", "loss"), ("history.jsonl", "mixture")):
        assert np.array_equal(column(run_dir, file, key), column(whole, file, key))
    assert (run_dir / "mixture.json").read_text() == (whole / "mixture.json").read_text()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_every_damaged_file_is_noticed(
    settings: dict[str, Any], tmp_path: Path, whole: Path
) -> None:
    """A flipped bit in each file, a missing one, no manifest: the checkpoint before is used."""
    config = write(saving(settings, tmp_path / "run"), tmp_path)
    shutil.copytree(whole, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "step_20"
    manifest = read_manifest(newest)
    assert {path.name for path in newest.iterdir()} == {*manifest.files, "manifest.json"}
    for name in manifest.files:
        for damage in (flip, Path.unlink):
            content = (newest / name).read_bytes()
            damage(newest / name)
            assert len(problems(newest, manifest, list(manifest.files))) == 1
            (newest / name).write_bytes(content)
    content = (newest / "manifest.json").read_bytes()
    for place in range(0, len(content) - 3, 7):
        (newest / "manifest.json").write_bytes(
            content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        )
        with pytest.raises(DamagedCheckpoint):
            read_manifest(newest)
    (newest / "manifest.json").write_bytes(content)
    (newest / "fastmix_rank1.pt").unlink()
    _, shown = forked("search", config, processes=2)
    assert "checkpoint of step 20 is damaged (fastmix_rank1.pt: No such file" in shown
    assert "continuing after step 15" in shown
    same(tmp_path / "run", whole)
    for step in (15, 20):
        flip(tmp_path / "run" / "checkpoints" / f"step_{step}" / "fastmix_rank0.pt")
    _, shown = forked("search", config, processes=2, expect=2)
    assert "none of the checkpoints" in shown
    assert "Traceback" not in shown


def test_nothing_is_sealed_that_cannot_be_seen_whole(whole: Path, tmp_path: Path) -> None:
    """As where another host's file has not come, or not in full."""
    folder = Path(shutil.copytree(whole / "checkpoints" / "step_20", tmp_path / "step"))
    manifest = read_manifest(folder)
    require_whole(folder, manifest)
    name = "fastmix_rank1.pt"
    for lost in (lambda path: os.truncate(path, 10), Path.unlink):
        lost(folder / name)
        with pytest.raises(OSError, match=f"{name}, which was written, is not there whole"):
            require_whole(folder, manifest)


def test_a_full_disk_ends_neither_run_nor_checkpoints(
    settings: dict[str, Any], tmp_path: Path, whole: Path
) -> None:
    """The checkpoints stand on a tmpfs that holds one checkpoint, not two."""
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    target = str(tmp_path / "run" / "checkpoints")
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", target]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        config = write(saving(settings, tmp_path / "run"), tmp_path)
        _, shown = forked("search", config, processes=2)
        assert "could not be written" in shown
        same(tmp_path / "run", whole)
        _, shown = forked("search", config, processes=2)
        assert "continuing after step" in shown
    finally:
        subprocess.run(["umount", target], check=True)


def test_a_disk_that_is_full_at_the_end(
    settings: dict[str, Any], tmp_path: Path, whole: Path
) -> None:
    """What is kept is told, nothing is written in part, and the same command goes on."""
    run_dir = tmp_path / "run"
    settings = saving(settings, run_dir)
    settings["checkpoint"]["final"] = True
    config = write(settings, tmp_path)

    def left() -> list[str]:
        return sorted(path.name for path in run_dir.rglob("*") if ".partial" in path.name) + [
            path.name for path in run_dir.glob(".*")
        ]

    _, shown = forked("search", config, processes=2, expect=1, fault="full-save:all:5")
    told = (
        "all 24 steps are made, but the last checkpoint (see above) and the results (File too "
        f"large) could not be written. Kept: {run_dir}/checkpoints/step_20; make room on the disk "
        "and start the same command again: it makes the last 4 steps anew"
    )
    assert told in shown
    assert "Traceback" not in shown
    assert not (run_dir / "report.html").exists()
    assert left() == []
    _, shown = forked("search", config, processes=2, expect=1, fault="full-results:all:1")
    assert "all 24 steps are made, but the results (File too large) could not" in shown
    assert f"Kept: {run_dir}/checkpoints/step_24; make room" in shown
    assert "it makes no step anew" in shown
    assert left() == []
    _, shown = forked("search", config, processes=2)
    assert "continuing after step 24" in shown
    assert (run_dir / "report.html").is_file()
    same(run_dir, whole)


def test_training_resumes_under_zero_2_and_3(settings: dict[str, Any], tmp_path: Path) -> None:
    for zero in (2, 3):
        settings["parallel"] = {"zero": zero}
        settings["checkpoint"] = {"every": 8, "keep": 9}
        whole = run_config("train", settings, tmp_path / str(zero), processes=2)
        losses = column(whole, "metrics.jsonl", "loss")
        for step in (16, 24):
            shutil.rmtree(whole / "checkpoints" / f"step_{step}")
        run_config("train", settings, tmp_path / str(zero), processes=2)
        assert np.array_equal(column(whole, "metrics.jsonl", "loss"), losses)
