"""`method: regmix` as a user runs it: a swarm that grows, its answer, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmix_mega.configuration import parse_config
from fastmix_mega.mixture.file import read_mixture
from tests.launch import column, forked, run_config

pytestmark = pytest.mark.distributed


@pytest.fixture
def swarm(settings: dict[str, Any]) -> dict[str, Any]:
    regmix = {"runs": 4, "families": ["linear", "log"], "candidates": 2000, "top": 16}
    train = settings["train"] | {"steps": 12}
    return settings | {"method": "regmix", "regmix": regmix, "train": train}


def test_a_swarm_is_trained_fitted_and_grows(swarm: dict[str, Any], tmp_path: Path) -> None:
    """Two processes; run 3 equals a `fastmix train` of its own, bit for bit; more runs are added
    to the finished ones."""
    run_dir = run_config("search", swarm, tmp_path / "swarm", processes=2)
    mixture = read_mixture(run_dir / "mixture.json")
    assert mixture.search["method"] == "regmix"
    assert mixture.search["runs"] == 4
    # Two targets of 128 sequences, forward only, for every run of 12 x 8 sequences.
    assert mixture.search["cost_in_proxy_runs"] == pytest.approx(4 * (1 + 256 / (3 * 96)), abs=1e-3)
    assert (run_dir / "report.html").is_file()
    assert "with 4 proxy runs of 12 steps" in (run_dir / "report.html").read_text()

    third = run_dir / "swarm" / "03"
    given = parse_config(swarm)
    weights = {each.name: each.weight for each in read_mixture(third / "mixture.json").sources}
    alone = swarm | {"method": "fastmix", "mixture": weights}
    alone["evaluation"] = {
        "sets": [{"name": each.name, "prefix": each.prefix} for each in given.targets]
    }
    again = run_config("train", alone, tmp_path / "alone", processes=2)
    for key in ("loss", "grad_norm", "source_count"):
        assert np.array_equal(
            column(again, "metrics.jsonl", key), column(third, "metrics.jsonl", key)
        )

    # Grown by one: the four are kept, byte for byte.
    before = (third / "metrics.jsonl").read_bytes()
    path = str(tmp_path / "swarm" / "config.yaml")
    _, shown = forked("search", path, "regmix.runs=5", processes=2)
    assert "run 5 of 5" in shown
    assert "run 4 of 5" not in shown
    assert (third / "metrics.jsonl").read_bytes() == before
    assert read_mixture(run_dir / "mixture.json").search["runs"] == 5

    # Other settings are another swarm.
    _, shown = forked("search", path, "train.steps=13", expect=2)
    assert "train.steps is 12 there, 13 here" in shown
