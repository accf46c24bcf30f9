"""The whole search against an independent reference, in real processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmix_mega.configuration import parse_config
from fastmix_mega.files import read_jsonl
from fastmix_mega.mixture.file import read_mixture
from tests.launch import column, run_config
from tests.reference import Trajectory, reference_search

REFERENCES: dict[tuple[str, bool, str], Trajectory] = {}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "mean": {},
    "choice": {"target_batch": 12},
    "minimax": {"objective": "minimax", "target_step": 3.0},
    "given": {
        "objective": "minimax",
        "target_step": 2.0,
        "target_reference": {"near": 5.0, "far": 5.5},
    },
}

pytestmark = pytest.mark.distributed


def relative(found: np.ndarray, wanted: Any) -> float:
    wanted = np.asarray(wanted, np.float64)
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize(
    ("processes", "zero", "scores", "tied", "objective"),
    [
        (1, 1, "head", False, "mean"),
        (2, 1, "head", True, "given"),
        (2, 2, "head", False, "minimax"),
        (1, 2, "hooks:head", False, "mean"),
        (2, 1, "all", False, "mean"),
        (2, 2, "all", True, "minimax"),
        (2, 1, "head", False, "choice"),
    ],
)
def test_search_equals_explicit_gradients(
    settings: dict[str, Any],
    tmp_path: Path,
    processes: int,
    zero: int,
    scores: str,
    tied: bool,
    objective: str,
) -> None:
    """Losses, scores and mixtures, with accumulation (4 or 2 micro-batches a step) and clipping.

    Also every target's own scores, and the weights of the targets where they move.
    """
    settings["model"]["tie_embeddings"] = tied
    settings["parallel"] = {"zero": zero}
    settings["search"] |= {"scores": scores, "target_scores": 1.0} | OBJECTIVES[objective]
    if objective == "choice":
        # Questions of three sequences, which two processes and micro-batches of two cut apart.
        quiz = str(Path(settings["tokenizer"]).parent / "quiz")
        settings["targets"][1] = {"name": "quiz", "prefix": quiz, "weight": 2}
        settings["evaluation"] = {"sets": [{"name": "quiz", "prefix": quiz}], "sequences": 60}
    key = (scores, tied, objective)
    if key not in REFERENCES:
        REFERENCES[key] = reference_search(parse_config(settings))
    reference = REFERENCES[key]
    run_dir = run_config("search", settings, tmp_path, processes)
    assert relative(column(run_dir, "metrics.jsonl", "loss"), reference.loss) < 1e-5
    assert relative(column(run_dir, "history.jsonl", "scores"), reference.scores) < 1e-5
    assert relative(column(run_dir, "history.jsonl", "mixture"), reference.mixture) < 1e-5
    losses = [list(row["target_loss"].values()) for row in read_jsonl(run_dir / "history.jsonl")]
    assert relative(np.array(losses), reference.target_loss) < 1e-5
    assert len(reference.mixture) == 5
    weights = column(run_dir, "history.jsonl", "target_weights")
    assert relative(weights, reference.target_weights) < 1e-5
    moves = "objective" in OBJECTIVES[objective]
    assert (np.ptp(weights[:, 0]) > 0.05) == moves
    own = column(run_dir, "history.jsonl", "target_scores")
    assert relative(own, reference.target_scores) < 1e-5
    if not moves:
        whole = column(run_dir, "history.jsonl", "scores")
        assert relative(np.einsum("nk,nks->ns", weights, own), whole) < 1e-5
    if objective == "choice":
        rows = read_jsonl(run_dir / "metrics.jsonl")
        (found,) = [row["eval"] for row in rows if "eval" in row]
        assert found.keys() == {"quiz", "quiz/accuracy"}
        assert round(20 * found["quiz/accuracy"], 6) % 1 == 0


def test_measuring_never_disturbs_training(settings: dict[str, Any], tmp_path: Path) -> None:
    """A search that never moves is bit for bit the training with that mixture."""
    mixture = {"alpha": 0.4, "beta": 0.3, "gamma": 0.2, "delta": 0.1}
    search = settings | {
        "search": settings["search"] | {"step": 0, "exploration": 0, "initial": mixture}
    }
    train = settings | {"mixture": mixture}
    searched = run_config("search", search, tmp_path / "search", processes=2)
    trained = run_config("train", train, tmp_path / "train", processes=2)
    for key in ("loss", "grad_norm", "source_count"):
        assert np.array_equal(
            column(searched, "metrics.jsonl", key), column(trained, "metrics.jsonl", key)
        )
    assert len(column(searched, "history.jsonl", "scores")) == 5
    weights = [source.weight for source in read_mixture(searched / "mixture.json").sources]
    assert weights == pytest.approx(list(mixture.values()), abs=1e-15)


def test_resumed_search_equals_uninterrupted(settings: dict[str, Any], tmp_path: Path) -> None:
    """Stopped in the middle of a window of scores, on two processes, bit for bit."""
    settings["search"]["objective"] = "minimax"
    whole = run_config("search", settings, tmp_path / "whole", processes=2)
    settings["checkpoint"] = {"every": 5, "keep": 9}
    again = run_config("search", settings, tmp_path / "keep", processes=2)
    for step in (20, 24):
        (again / "checkpoints" / f"step_{step}").rename(again / f"later_{step}")
    assert sorted(path.name for path in (again / "checkpoints").glob("step_*")) == [
        "step_10",
        "step_15",
        "step_5",
    ]
    run_config("search", settings, tmp_path / "keep", processes=2)
    for file, key in (
        ("metrics.jsonl", "loss"),
        ("metrics.jsonl", "grad_norm"),
        ("history.jsonl", "scores"),
        ("history.jsonl", "target_scores"),
        ("history.jsonl", "target_weights"),
        ("history.jsonl", "mixture"),
    ):
        assert np.array_equal(column(again, file, key), column(whole, file, key))
    assert (again / "mixture.json").read_text() == (whole / "mixture.json").read_text()


def test_training_is_the_same_under_zero_1_2_and_3(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    losses = []
    for zero in (1, 2, 3):
        settings["parallel"] = {"zero": zero}
        run_dir = run_config("train", settings, tmp_path / str(zero), processes=2)
        losses.append(column(run_dir, "metrics.jsonl", "loss"))
    assert relative(losses[1], losses[0]) < 1e-5
    assert relative(losses[2], losses[0]) < 1e-5


def test_a_converged_search_ends_early(settings: dict[str, Any], tmp_path: Path) -> None:
    """At the first outer step that may end it, on two processes; resumed just before, it ends
    there again."""
    settings["search"] |= {"every": 1, "warmup": 2, "stop_when_converged": 0.9}
    settings["checkpoint"] = {"every": 5, "keep": 9}
    run_dir = run_config("search", settings, tmp_path, processes=2)
    before = (run_dir / "mixture.json").read_text()
    search = read_mixture(run_dir / "mixture.json").search
    assert search["steps"] == search["converged_after"] == 18
    assert search["outer_steps"] == 16
    assert search["cost_in_proxy_runs"] < 18 / 24 + 0.5
    assert len(column(run_dir, "metrics.jsonl", "loss")) == 18
    assert [row["kind"] for row in read_jsonl(run_dir / "events.jsonl")] == ["converged"]
    (run_dir / "checkpoints" / "step_18").rename(run_dir / "later")
    (run_dir / "mixture.json").unlink()
    run_config("search", settings, tmp_path, processes=2)
    assert (run_dir / "mixture.json").read_text() == before
