"""A search over conversations: the same on every layout, and after a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fastmix_mega.parallel.test_layouts import changed, differences
from tests.launch import column, run_config

pytestmark = pytest.mark.distributed

ALL = {"search": {"scores": "all"}}
CASES: list[tuple[str, int, dict[str, Any], dict[str, Any]]] = [
    ("DP2", 2, {}, {}),
    ("TP2 + sequence", 2, {"tensor": 2, "sequence": True}, {}),
    ("PP2 x DP2", 4, {"pipeline": 2}, {}),
    ("CP2", 2, {"context": 2}, {}),
    ("CP2, all parameters", 2, {"context": 2}, ALL),
]


def mixed(chats: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """One source is text; the seq_length is short enough that conversations are cut."""
    chats["sources"][3]["prefix"] = settings["sources"][3]["prefix"]
    chats["train"]["seq_length"] = 24
    return chats


@pytest.fixture(scope="module")
def references() -> dict[str, Path]:
    return {}


@pytest.mark.parametrize(
    ("name", "processes", "parallel", "changes"), CASES, ids=[case[0] for case in CASES]
)
def test_every_layout_gives_the_same_search(
    chats: dict[str, Any],
    settings: dict[str, Any],
    tmp_path: Path,
    references: dict[str, Path],
    name: str,
    processes: int,
    parallel: dict[str, Any],
    changes: dict[str, Any],
) -> None:
    wanted = changed(mixed(chats, settings), changes)
    if str(changes) not in references:
        references[str(changes)] = run_config("search", wanted, tmp_path / "one")
    mine = changed(wanted, {"parallel": parallel})
    run_dir = run_config("search", mine, tmp_path / "many", processes)
    assert len(column(run_dir, "history.jsonl", "mixture")) == 5
    found = differences(run_dir, references[str(changes)])
    assert max(found.values()) < 1e-5, (name, found)


def test_resumed_equals_uninterrupted(
    chats: dict[str, Any], settings: dict[str, Any], tmp_path: Path
) -> None:
    """In the middle of a window, bit for bit; two processes."""
    wanted = mixed(chats, settings)
    wanted["checkpoint"] = {"every": 6, "keep": 9}
    run_dir = run_config("search", wanted, tmp_path, processes=2)
    before = {
        (file, key): column(run_dir, file, key)
        for file, key in (
            ("metrics.jsonl", "loss"),
            ("metrics.jsonl", "source_loss"),
            ("history.jsonl", "scores"),
            ("history.jsonl", "mixture"),
        )
    }
    mixture = (run_dir / "mixture.json").read_text()
    for step in (24, 18, 12):
        (run_dir / "checkpoints" / f"step_{step}").rename(run_dir / f"later_{step}")
    run_config("search", wanted, tmp_path, processes=2)
    for (file, key), values in before.items():
        assert np.array_equal(column(run_dir, file, key), values, equal_nan=True)
    assert (run_dir / "mixture.json").read_text() == mixture
