"""The command as a user types it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastmix_mega.cli import main as cli
from tests.launch import fastmix, run_config


def config_file(settings: dict[str, Any], tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def test_check_says_ready(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", config_file(settings, tmp_path), "--nproc", "2"]) == 0
    shown = capsys.readouterr().out
    assert "ready" in shown
    assert "0.2M parameters" in shown or "0.1M parameters" in shown


def test_check_lists_mistakes(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config_file(settings, tmp_path)
    assert cli.main(["check", path, "train.global_batch=7"]) == 2
    assert "must be a multiple" in capsys.readouterr().out


def test_overrides_on_both_sides_of_options(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config_file(settings, tmp_path)
    assert cli.main(["check", path, "seed=2", "--nproc", "2", "train.global_batch=7"]) == 2
    assert "2 x 2" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--colour"], ["--nproc", "0"]])
def test_unknown_words_are_refused(
    settings: dict[str, Any], tmp_path: Path, words: list[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["check", config_file(settings, tmp_path), *words])
    assert stopped.value.code == 2


def test_an_override_must_look_like_one(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", config_file(settings, tmp_path), "wrong"]) == 2
    assert "must look like train.steps=100" in capsys.readouterr().err


def test_unknown_data_tool(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "nothing"]) == 2
    assert "preprocess" in capsys.readouterr().err


def test_a_mistake_has_no_stack_trace(settings: dict[str, Any], tmp_path: Path) -> None:
    settings["sources"][0]["prefix"] = "nowhere/alpha"
    path = config_file(settings, tmp_path)
    shown = fastmix("search", path, "--nproc", "2", expect=2)
    assert "nowhere/alpha.bin is missing" in shown
    assert "Traceback" not in shown


@pytest.mark.distributed
def test_bf16_wandb_offline_and_nothing_for_strangers(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """A run in bf16 with ZeRO 2 leaves an offline wandb run, no secret, and no file that just
    anybody may write, however careless the user's mask."""
    settings |= {"precision": "bf16", "parallel": {"zero": 2}}
    settings["log"] = {"every": 1, "wandb": "offline"}
    secret = "0123456789abcdef" * 2 + "76543210"
    variables = {"WANDB_API_KEY": secret, "HF_TOKEN": secret}
    path, run_dir = config_file(settings, tmp_path), tmp_path / "run"
    shown = fastmix("search", path, "--nproc", "2", variables=variables, umask=0)
    assert list((run_dir / "wandb").glob("offline-run-*"))
    assert (run_dir / "report.html").is_file()
    assert (run_dir / "history.jsonl").is_file()
    assert secret not in shown
    for each in (run_dir, *run_dir.rglob("*")):
        if not each.is_symlink():
            assert not each.stat().st_mode & 0o002, each
        if each.is_file():
            assert secret.encode() not in each.read_bytes(), each


@pytest.mark.parametrize("verb", ["check", "search"])
def test_a_read_only_run_folder(settings: dict[str, Any], tmp_path: Path, verb: str) -> None:
    settings["run_dir"] = str(tmp_path / "readonly" / "run")
    path = config_file(settings, tmp_path)
    (tmp_path / "readonly").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(tmp_path / "readonly")]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a read-only tmpfs needs root")
    try:
        shown = fastmix(verb, path, expect=2)
    finally:
        subprocess.run(["umount", tmp_path / "readonly"], check=True)
    assert f"run_dir: cannot write to {tmp_path / 'readonly'}" in shown
    assert "Traceback" not in shown


@pytest.mark.distributed
def test_reference_method(settings: dict[str, Any], tmp_path: Path) -> None:
    """The authors' recipe runs in the same loop: one micro-batch is scored per outer step."""
    from fastmix_mega.files import read_jsonl

    settings["method"] = "reference"
    settings["search"] |= {"precondition": False, "exploration": 1.0, "target_batch": 2}
    run_dir = run_config("search", settings, tmp_path, processes=2)
    rows = read_jsonl(run_dir / "history.jsonl")
    assert len(rows) == 5
    assert all(sum(row["counts"]) == settings["train"]["micro_batch"] for row in rows)
    assert rows[-1]["mixture"] != rows[0]["mixture"]


def test_a_sweep_sets_seed_and_folder(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config_file(settings, tmp_path)
    assert cli.main(["check", path, "--sweep-seed", "4", "train.steps=30"]) == 0
    assert f"run folder {tmp_path}/run/seed_4" in capsys.readouterr().out
    assert cli.main(["check", path, "--sweep-seed", "-1"]) == 2
    assert "seed: must be at least 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["surface", "runs/a", "--csv"], "fastmix surface: it takes no --csv"),
        (["export", "a", "--to", "trl", "-o", "b", "--sizes", "c"], "it takes no --sizes c"),
        (["check", "a.yaml", "--nproc", "two"], "'two' is no whole number"),
    ],
)
def test_a_wrong_option_is_told_with_its_verb(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_surface_does_not_overwrite_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("run.json", "surface.json"):
        (tmp_path / name).write_text("{}")
    path = tmp_path / "surface.json"
    assert cli.main(["surface", str(tmp_path), "--output", str(path)]) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert path.read_text() == "{}"
