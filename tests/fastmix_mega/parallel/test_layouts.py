"""The same search on every layout of processes, against one process: a table of differences.

The table goes to test-logs/layouts.md. One process itself equals explicit per-source gradients
(`tests/fastmix_mega/training/test_trainer.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.launch import LOGS, column, run_config

pytestmark = pytest.mark.distributed

COLUMNS = (
    ("metrics.jsonl", "loss"),
    ("metrics.jsonl", "source_loss"),
    ("metrics.jsonl", "grad_norm"),
    ("history.jsonl", "scores"),
    ("history.jsonl", "target_scores"),
    ("history.jsonl", "mixture"),
)
TENSOR, SEQUENCE = {"tensor": 2}, {"tensor": 2, "sequence": True}
STAGES = {"pipeline": 2}
TIED_ALL = {"model": {"tie_embeddings": True}, "search": {"scores": "all"}}
QWEN_ALL = {
    "model": {"qkv_bias": True, "qk_norm": True, "head_size": 32},
    "search": {"scores": "all"},
}
BF16_TOLERANCE = {
    "loss": 2e-3,
    "source_loss": 5e-3,
    "grad_norm": 1e-2,
    "scores": 0.1,
    "target_scores": 0.1,
}
"""bf16 keeps 8 bits: another order of sums is another rounding. Mixtures are held to 2e-2."""

CASES: list[tuple[str, int, dict[str, Any], dict[str, Any]]] = [
    ("DP2", 2, {}, {}),
    ("DP2, ZeRO 2, tied, all parameters", 2, {"zero": 2}, TIED_ALL),
    ("TP2", 2, TENSOR, {}),
    ("TP2, ZeRO 2", 2, TENSOR | {"zero": 2}, {}),
    ("TP2 + sequence, all, selective recomputation", 2, SEQUENCE,
     {"search": {"scores": "all"}, "train": {"recompute": "selective"}}),
    ("TP2, biases, norms of heads, all parameters", 2, TENSOR, QWEN_ALL),
    ("PP2", 2, STAGES, {}),
    ("PP2, tied, all, full recomputation", 2, STAGES, TIED_ALL | {"train": {"recompute": "full"}}),
    ("PP2, bf16", 2, STAGES, {"precision": "bf16"}),
    ("CP2", 2, {"context": 2}, {}),
    ("CP2, a quarter of the tokens scored", 2, {"context": 2}, {"search": {"score_tokens": 0.25}}),
    ("CP2, all parameters", 2, {"context": 2}, {"search": {"scores": "all"}}),
    ("TP2 x DP2", 4, TENSOR, {}),
    ("TP2 + sequence x DP2, bf16", 4, SEQUENCE, {"precision": "bf16"}),
    ("PP2 x DP2", 4, STAGES, {}),
    ("TP2 x PP2", 4, TENSOR | STAGES, {}),
    ("TP2 + sequence x CP2", 4, SEQUENCE | {"context": 2}, {}),
    ("TP2 x PP2, multiple choice", 4, TENSOR | STAGES, {"search": {"target_batch": 12}}),
    ("PP2 x CP2, all parameters", 4, STAGES | {"context": 2}, {"search": {"scores": "all"}}),
    ("PP4, interleaved", 4, {"pipeline": 4, "interleave": 2}, {"model": {"layers": 8}}),
    ("TP2 + sequence x PP2 x DP2, tied, all", 8, SEQUENCE | STAGES, TIED_ALL),
]  # fmt: skip


def changed(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    found = copy.deepcopy(settings)
    for section, value in changes.items():
        found[section] = found.get(section, {}) | value if isinstance(value, dict) else value
    found["checkpoint"] = {"final": False}
    return found


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The run folder of the same settings on one process; run once for each."""
    done: dict[str, Path] = {}

    def run(settings: dict[str, Any], changes: dict[str, Any]) -> Path:
        # Recomputation changes no number and is left out of the reference.
        kept = {key: value for key, value in changes.items() if key != "train"}
        if str(kept) not in done:
            directory = tmp_path_factory.mktemp("one")
            done[str(kept)] = run_config("search", changed(settings, kept), directory)
        return done[str(kept)]

    return run


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    keys = [key for _, key in COLUMNS]
    rows = [f"| layout | processes | {' | '.join(keys)} |", "|---" * (2 + len(keys)) + "|"]
    yield rows
    LOGS.mkdir(exist_ok=True)
    (LOGS / "layouts.md").write_text("\n".join(rows) + "\n")


def differences(found: Path, wanted: Path) -> dict[str, float]:
    """Largest difference by column, relative to the column's largest value."""
    result = {}
    for file, key in COLUMNS:
        here, there = column(found, file, key), column(wanted, file, key)
        assert here.shape == there.shape
        assert np.array_equal(np.isnan(here), np.isnan(there))
        result[key] = float(np.nanmax(np.abs(here - there)) / np.nanmax(np.abs(there)))
    return result


@pytest.mark.parametrize(
    ("name", "processes", "parallel", "changes"), CASES, ids=[case[0] for case in CASES]
)
def test_every_layout_gives_the_same_search(
    settings: dict[str, Any],
    tmp_path: Path,
    one_process: Callable[..., Path],
    table: list[str],
    name: str,
    processes: int,
    parallel: dict[str, Any],
    changes: dict[str, Any],
) -> None:
    """24 steps of 4 sequences' accumulation and clipping, 5 outer steps; fp32 within 1e-5."""
    if "choice" in name:
        quiz = Path(settings["tokenizer"]).parent / "quiz"
        settings["targets"][1] = {"name": "quiz", "prefix": str(quiz)}
    reference = one_process(settings, changes)
    mine = changed(settings, changes | {"parallel": parallel})
    run_dir = run_config("search", mine, tmp_path, processes)
    assert len(column(run_dir, "history.jsonl", "mixture")) == 5
    # The micro-batches are the same ones: as many of each source after every step ...
    assert np.array_equal(
        column(run_dir, "metrics.jsonl", "source_count"),
        column(reference, "metrics.jsonl", "source_count"),
    )
    found = differences(run_dir, reference)
    shown = " | ".join(f"{value:.1e}" for value in found.values())
    table.append(f"| {name} | {processes} | {shown} |")
    # ... and the same text: each source's loss at every step.
    for key, value in found.items():
        bf16 = mine.get("precision") == "bf16"
        assert value < (BF16_TOLERANCE.get(key, 2e-2) if bf16 else 1e-5), (key, found)


@pytest.mark.parametrize("parallel", [TENSOR, {"context": 2}], ids=["TP2", "CP2"])
def test_zero_3_trains_the_same(
    settings: dict[str, Any], tmp_path: Path, parallel: dict[str, Any]
) -> None:
    plain = run_config("train", changed(settings, {}), tmp_path / "one")
    mine = changed(settings, {"parallel": parallel | {"zero": 3}})
    run_dir = run_config("train", mine, tmp_path / "many", processes=2)
    for key in ("loss", "grad_norm"):
        here, there = (column(each, "metrics.jsonl", key) for each in (run_dir, plain))
        assert np.abs(here - there).max() / np.abs(there).max() < 1e-5


def test_the_target_never_leaks_into_a_pipeline(settings: dict[str, Any], tmp_path: Path) -> None:
    """Bit for bit, though the target's backward passes use the training's buffers."""
    same = changed(settings, TIED_ALL | {"parallel": STAGES})
    same["search"] |= {"step": 0, "exploration": 0}
    # Scores over all parameters draw whole micro-batches of a source; training draws sequences.
    same["train"] = same["train"] | {"micro_batch": 1}
    searched = run_config("search", same, tmp_path / "search", processes=2)
    trained = run_config("train", same, tmp_path / "train", processes=2)
    assert len(column(searched, "history.jsonl", "scores")) == 5
    for key in ("loss", "grad_norm", "source_count"):
        assert np.array_equal(
            column(searched, "metrics.jsonl", key), column(trained, "metrics.jsonl", key)
        )
