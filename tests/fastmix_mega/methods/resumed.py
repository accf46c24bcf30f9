"""What the tests of the methods have in common: the whole, and the same cut and resumed."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastmix_mega.files import read_jsonl
from fastmix_mega.mixture.controller import Controller
from fastmix_mega.mixture.file import MixtureFile, read_mixture
from tests.fastmix_mega.mixture.windows import sums_of
from tests.launch import column, forked, run_config

KEYS = (("metrics.jsonl", "loss"), ("history.jsonl", "scores"), ("history.jsonl", "mixture"))


def require_same_after_resuming(new: Callable[[], Controller]) -> None:
    """A controller of three sources that is restored in the middle goes on bit for bit."""
    random = np.random.default_rng(0)
    windows = [sums_of(random.uniform(0, 3, 3).tolist()) for _ in range(15)]
    whole, first, second = new(), new(), new()
    for sums in windows:
        whole.update(sums)
    for sums in windows[:6]:
        first.update(sums)
    second.load(pickle.loads(pickle.dumps(first.state())))
    for sums in windows[6:]:
        second.update(sums)
    assert second.outer_step == whole.outer_step == 15
    assert np.array_equal(second.mixture, whole.mixture)
    assert np.array_equal(second.result().weights, whole.result().weights)
    assert second.row() == whole.row()


def searched_and_resumed(
    settings: dict[str, Any], tmp_path: Path
) -> tuple[MixtureFile, list[dict[str, Any]], Path]:
    """24 steps with 4 of warm-up on two processes; cut after step 14, it ends the same, bit for
    bit.

    Returns:
        The mixture, the lines of history.jsonl, and the run folder.
    """
    settings |= {"checkpoint": {"every": 7, "keep": 9}}
    settings["search"]["target_batch"] = 4
    method = settings["method"]
    run_dir = run_config("search", settings, tmp_path, processes=2)
    whole = [column(run_dir, *key) for key in KEYS]
    mixture = (run_dir / "mixture.json").read_text()
    rows = read_jsonl(run_dir / "history.jsonl")
    found = read_mixture(run_dir / "mixture.json")
    weights = np.array([source.weight for source in found.sources])
    assert found.search["method"] == method
    assert abs(weights.sum() - 1) < 1e-9
    assert not np.allclose(weights, 0.25, atol=1e-6)
    assert f"<dd>{method}</dd>" in (run_dir / "report.html").read_text()

    for step in (21, 24):
        shutil.rmtree(run_dir / "checkpoints" / f"step_{step}")
    (run_dir / "mixture.json").unlink()
    _, shown = forked("search", str(tmp_path / "config.yaml"), processes=2)
    assert "continuing after step 14" in shown
    assert "the reference run" not in shown
    for key, wanted in zip(KEYS, whole, strict=True):
        assert np.array_equal(column(run_dir, *key), wanted)
    assert (run_dir / "mixture.json").read_text() == mixture
    return found, rows, run_dir
