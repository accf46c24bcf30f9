"""The starting mixture without a run is the one that the run begins with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fastmix_mega.cli import main as cli
from fastmix_mega.configuration import parse_config
from fastmix_mega.data.run_inputs import open_inputs
from fastmix_mega.planning.start_mixture import starting_mixture
from tests.launch import run_config


def test_it_is_the_runs_own(settings: dict[str, Any], tmp_path: Path) -> None:
    limits = {"budget_tokens": 20_000, "sources": {"beta": {"max": 0.4}}}
    settings["search"] = {
        "answer": "trajectory",
        "target_batch": 6,
        "every": 4,
        "step": 0.0,
        "constraints": limits,
    }
    config = parse_config(settings)
    found = starting_mixture(config, "search", open_inputs(config))
    run_dir = run_config("search", settings, tmp_path)
    mixture = json.loads((run_dir / "mixture.json").read_text())
    begun = [mixture["search"]["first_mixture"][name] for name in config.source_names]
    np.testing.assert_allclose(found, begun, rtol=1e-12)
    assert found[1] == pytest.approx(0.4)


@pytest.mark.parametrize("mode", ["search", "train"])
def test_the_table(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    settings |= {"mixture": "proportional"}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    assert cli.main(["check", str(path), "--start", "--mode", mode]) == 0
    shown = capsys.readouterr().out
    assert "the mixture at the start:" in shown
    # 24 steps of 8 x 16 tokens, a quarter of them from 5,100 tokens.
    assert f"alpha   25.00%  {24 * 8 * 16 / 4 / 5100:>18.2f}" in shown
