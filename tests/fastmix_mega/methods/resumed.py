"""What the tests of the methods have in common: the whole, and the same cut and resumed."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fastmix_mega.files import read_jsonl
from fastmix_mega.mixture.controller import Controller
from fastmix_mega.mixture.file import MixtureFile, read_mixture
from tests.fastmix_mega.mixture.windows import sums_of
from tests.launch import column, forked

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
    settings: dict[str, Any], tmp_path: Path, command: Sequence[str] = ("search",)
) -> tuple[MixtureFile, list[dict[str, Any]], Path]:
    """24 steps with 4 of warm-up on two processes; cut after step 14, it ends the same, bit for
    bit.

    Args:
        settings: of the search.
        tmp_path: for the configuration and the run folder.
        command: what is run, but for the configuration's path (see `tests.ranks.start`).

    Returns:
        The mixture, the lines of history.jsonl, and the run folder.
    """
    run_dir, path = tmp_path / "run", tmp_path / "config.yaml"
    settings |= {"checkpoint": {"every": 7, "keep": 9}, "run_dir": str(run_dir)}
    settings["search"]["target_batch"] = 4
    method = settings["method"]
    path.write_text(yaml.safe_dump(settings))
    forked(*command, str(path), processes=2)
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
    _, shown = forked(*command, str(path), processes=2)
    assert "continuing after step 14" in shown
    assert "the reference run" not in shown
    for key, wanted in zip(KEYS, whole, strict=True):
        assert np.array_equal(column(run_dir, *key), wanted)
    assert (run_dir / "mixture.json").read_text() == mixture
    return found, rows, run_dir
