"""Runs of several seeds in one folder: never over a run of its own, and pooled by every name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastmix_mega.cli import main as cli
from fastmix_mega.configuration import parse_config
from fastmix_mega.mixture.file import read_mixture
from fastmix_mega.training.identity import record_run
from tests.fastmix_mega.report.samples import write_run


def test_seeds_in_a_plain_runs_folder_and_back(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    config = parse_config(settings)
    record_run(config, "search")
    mixture = Path(config.run_dir) / "mixture.json"
    mixture.write_text("{}")
    assert cli.main(["search", str(path), "--seeds", "2"]) == 2
    assert "holds a run of its own" in capsys.readouterr().err
    assert mixture.read_text() == "{}"

    shutil.rmtree(config.run_dir)
    record_run(config.model_copy(update={"run_dir": f"{config.run_dir}/seed_7"}), "search")
    for verb in ("search", "train"):
        assert cli.main([verb, str(path)]) == 2
        assert "it holds the runs of several seeds (seed_7)" in capsys.readouterr().err


def test_the_report_of_a_sweeps_parent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Folders as Slurm's array leaves them, of this version and of earlier ones."""
    parent = tmp_path / "runs"
    for seed, name in ((1, "seed_1"), (2, "seed-2"), (3, "seed_3")):
        write_run(parent / name, seed=seed, outer_steps=4, finished=seed < 3)
        (parent / name / "run.json").write_text("{}")
    assert cli.main(["report", str(parent)]) == 0
    shown = capsys.readouterr().out
    assert "pooled over 2 seeds" in shown
    assert "not finished, so left out: seed_3" in shown
    assert (parent / "report.html").is_file()
    pooled = read_mixture(parent / "mixture.json")
    assert [entry["run"] for entry in pooled.search["per_seed"]] == ["seed_1", "seed-2"]

    assert cli.main(["pool", str(parent), "-o", str(tmp_path / "pooled.json")]) == 0
    assert read_mixture(tmp_path / "pooled.json").sources == pooled.sources


def test_one_finished_seed_is_no_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "runs" / "seed_1", outer_steps=4)
    (tmp_path / "runs" / "seed_1" / "run.json").write_text("{}")
    assert cli.main(["report", str(tmp_path / "runs")]) == 2
    assert "1 of 1 seeds have finished" in capsys.readouterr().err


def test_a_seeds_folder_of_an_earlier_version_goes_on(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    (tmp_path / "run" / "seed-4").mkdir(parents=True)
    assert cli.main(["check", str(path), "--sweep-seed", "4"]) == 0
    assert "run folder " + str(tmp_path / "run" / "seed-4") in capsys.readouterr().out
