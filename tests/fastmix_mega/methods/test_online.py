"""`method: doremi | doge | odm | aioli` in the one loop: their files, costs, and resumed runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastmix_mega.methods.online import aioli_probe

from fastmix_mega.files import read_jsonl
from fastmix_mega.mixture.file import read_mixture
from tests.launch import column, forked, run_config

pytestmark = pytest.mark.distributed

KEYS = (("metrics.jsonl", "loss"), ("history.jsonl", "scores"), ("history.jsonl", "mixture"))


@pytest.mark.parametrize("method", ["doremi", "doge", "odm", "aioli"])
def test_a_search_and_the_same_resumed(
    settings: dict[str, Any], tmp_path: Path, method: str
) -> None:
    """24 steps with 4 of warm-up on two processes; cut after step 14, it ends the same, bit for
    bit."""
    settings |= {"method": method, "checkpoint": {"every": 7, "keep": 9}}
    if method == "aioli":
        settings["aioli"] = {"probe_steps": 2, "free_steps": 3}
    else:
        del settings["targets"]  # doge's objective is the sum over the sources then.
    settings["search"]["target_batch"] = 4
    run_dir = run_config("search", settings, tmp_path, processes=2)
    whole = [column(run_dir, *key) for key in KEYS]
    mixture = (run_dir / "mixture.json").read_text()
    rows = read_jsonl(run_dir / "history.jsonl")
    check_what_was_done(method, run_dir, rows)

    for step in (21, 24):
        shutil.rmtree(run_dir / "checkpoints" / f"step_{step}")
    (run_dir / "mixture.json").unlink()
    _, shown = forked("search", str(tmp_path / "config.yaml"), processes=2)
    assert "continuing after step 14" in shown
    assert "the reference run" not in shown
    for key, wanted in zip(KEYS, whole, strict=True):
        assert np.array_equal(column(run_dir, *key), wanted)
    assert (run_dir / "mixture.json").read_text() == mixture


def check_what_was_done(method: str, run_dir: Path, rows: list[dict[str, Any]]) -> None:
    found = read_mixture(run_dir / "mixture.json")
    weights = np.array([source.weight for source in found.sources])
    assert found.search["method"] == method
    assert weights.sum() == pytest.approx(1)
    assert not np.allclose(weights, 0.25, atol=1e-6)
    assert f"<dd>{method}</dd>" in (run_dir / "report.html").read_text()
    cost = found.search["cost_in_proxy_runs"]
    if method in ("doremi", "odm"):
        # Every step after the warm-up, from its own 8 sequences.
        assert [row["step"] for row in rows] == list(range(5, 25))
        assert all(sum(row["counts"]) == 8 for row in rows)
    if method == "doremi":
        assert (run_dir / "reference" / "mixture.json").is_file()
        assert cost == pytest.approx(2 + 20 / 24 / 3, abs=1e-3)
        # Excess losses are clipped; the reference is a model like the proxy, so they are small.
        scores = np.array([row["scores"] for row in rows])
        assert (scores >= 0).all()
        assert 0 < scores.max() < 1
        assert np.allclose([row["sampling"] for row in rows], 0.25)
    elif method == "odm":
        assert cost == 1.0
        assert all(
            row["sampling"] == before
            for row, before in zip(rows[1:], (row["mixture"] for row in rows), strict=False)
        )
    elif method == "aioli":
        # Rounds of four probes of 2 steps and 3 free ones.
        assert [row["step"] for row in rows] == [6, 8, 10, 12, 15, 17, 19, 21, 23]
        assert set(rows[0]["target_loss"]) == {"near", "far"}
        probes = [aioli_probe(4, source, 0.75).tolist() for source in range(4)]
        assert sorted(row["sampling"] for row in rows[:4]) == sorted(probes)
        assert cost == pytest.approx(1 + 10 * 4 / (3 * 24 * 8), abs=1e-3)
    else:
        assert [row["step"] for row in rows] == [8, 12, 16, 20, 24]
        assert set(rows[0]["target_loss"]) == {f"{each.name}.target" for each in found.sources}
        assert np.allclose([row["sampling"] for row in rows], 0.25)
        assert cost == pytest.approx(1 + 5 * 4 / (24 * 8), abs=1e-3)
