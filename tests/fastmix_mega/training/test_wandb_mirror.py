"""The real wandb, without a network: ids that stay, and a way back from `online`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastmix_mega.configuration import parse_config
from fastmix_mega.training.wandb_mirror import run_id, wanted_mode
from tests.launch import clean_environment

LOG_TWICE = """
import sys
from fastmix_mega.configuration import load_config
from fastmix_mega.training.wandb_mirror import start_wandb

config = load_config(sys.argv[1])
for start in (0, 5):
    run = start_wandb(config, start, print, network_seconds=2.0)
    print(run.id, run.name, run.group, run.entity, run.offline)
    run.log({"loss": 1.0}, step=start + 1)
    run.finish()
"""


@pytest.mark.parametrize(
    ("variable", "given", "mode"),
    [
        ("", None, "offline"),
        ("online", None, "online"),
        ("disabled", None, "disabled"),
        ("dryrun", "online", "offline"),
        ("online", "offline", "offline"),
        ("offline", "disabled", "disabled"),
        ("nonsense", "online", "online"),
    ],
)
def test_the_mode(
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    given: str | None,
    mode: str,
) -> None:
    monkeypatch.setenv("WANDB_MODE", variable)
    settings["log"] = {} if given is None else {"wandb": given}
    assert wanted_mode(parse_config(settings)) == mode


def test_a_run_that_goes_on_keeps_its_id(tmp_path: Path) -> None:
    first = run_id(tmp_path, 0)
    assert run_id(tmp_path, 7) == first
    assert run_id(tmp_path, 0) != first
    (tmp_path / "wandb.json").write_text("{")
    assert len(run_id(tmp_path, 7)) == 8


@pytest.mark.parametrize("key", ["", "0" * 40])
def test_online_without_login_or_network_logs_offline(
    settings: dict[str, Any], tmp_path: Path, key: str
) -> None:
    """And a second start is the same run, with a name that tells it from its neighbours."""
    settings["log"] = {"wandb": "online"}
    (tmp_path / "run").mkdir()
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    own = {"HOME": str(tmp_path), "WANDB_MODE": "nonsense", "WANDB_ENTITY": "team"}
    own |= {"WANDB_API_KEY": key, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", LOG_TWICE, str(path)],
        env=clean_environment() | own,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    told = [line for line in lines if "log.wandb: online does not work" in line]
    assert len(told) == 2
    first, second = (line.split() for line in lines if line.endswith("True"))
    assert first == second
    assert first[1:] == [f"{tmp_path.name}/run", tmp_path.name, "team", "True"]
    folders = list((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    assert all(folder.name.endswith(first[0]) for folder in folders)
