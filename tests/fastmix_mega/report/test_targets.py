"""The section on several targets: what it says of the numbers in a run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastmix_mega.errors import UserError
from fastmix_mega.report.build import build_report, render
from fastmix_mega.report.read import Run, read_run
from fastmix_mega.report.sources import view_mixture
from fastmix_mega.report.targets import TargetMatrix, target_charts, target_matrix
from tests.fastmix_mega.report.samples import write_run

NAMES = ("a", "b", "c")


def matrix_of(run: Run) -> TargetMatrix | None:
    mixture = view_mixture(run)
    assert mixture is not None
    return target_matrix(run, mixture)


def edit(path: Path, change: Any) -> None:
    """Apply `change` to a JSON file, or to every line of a JSONL file."""
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        return
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        change(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_result_is_shown_against_the_mixtures_average(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run", NAMES)

    def change(content: dict[str, Any]) -> None:
        for source, weight in zip(content["sources"], (0.5, 0.3, 0.2), strict=True):
            source["weight"] = weight
        content["targets"][0] |= {
            "share": 0.25,
            "scores": {"a": 3.0, "b": 1.0, "c": -4.0},
            "score_stderr": {"a": 0.5, "b": 0.5, "c": 0.5},
        }
        content["targets"][1] |= {
            "share": 0.75,
            "scores": {"a": 0.0, "b": 1.0, "c": 1.0},
            "score_stderr": {"a": 0.0, "b": 9.0, "c": 9.0},
        }

    edit(directory / "mixture.json", change)
    found = matrix_of(read_run(directory))
    assert found is not None
    assert found.averaged
    assert found.shares == ["25%", "75%"]
    (_, first), (_, second), (_, third) = found.rows
    # The average for the first target is 1.5 + 0.3 - 0.8 = 1.
    signals = [row[0].signal for row in (first, second, third) if row[0] is not None]
    assert signals == pytest.approx([4.0, 0.0, -10.0])
    assert first[1] is None
    assert third[0] is not None
    assert third[0].level == -4
    assert found.findings == [
        ("unseen", "helped most by a, least by c"),
        ("average", "no source clearly helps more or less than the mixture"),
    ]


def test_a_search_in_progress_shows_its_latest_scores(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", NAMES, finished=False))
    found = matrix_of(run)
    assert found is not None
    assert not found.averaged
    by_name = {source.name: cells for source, cells in found.rows}
    scores = [[cell.score for cell in by_name[name] if cell is not None] for name in NAMES]
    wanted = run.history[-1].target_scores
    assert wanted is not None
    assert [list(column) for column in zip(*scores, strict=True)] == wanted


def test_nothing_for_one_target_old_files_and_training(tmp_path: Path) -> None:
    one = read_run(write_run(tmp_path / "one", NAMES, targets=("only",), finished=False))
    assert matrix_of(one) is None
    old = write_run(tmp_path / "old", NAMES)
    edit(old / "history.jsonl", lambda row: [row.pop(k) for k in list(row) if "target_" in k[:7]
         and k != "target_loss"])  # fmt: skip
    edit(old / "mixture.json", lambda content: [t.pop("scores") for t in content["targets"]])
    assert matrix_of(read_run(old)) is None
    assert "targets-title" not in render(read_run(old))
    training = read_run(write_run(tmp_path / "training", NAMES, training=True))
    assert matrix_of(training) is None


def test_weights_of_targets_only_where_they_move(tmp_path: Path) -> None:
    assert target_charts(read_run(write_run(tmp_path / "mean", NAMES))) == {}
    run = read_run(write_run(tmp_path / "minimax", NAMES, minimax=True))
    weights, excess = target_charts(run).values()
    last = run.history[-1]
    assert last.target_weights is not None
    assert [line.series.values[-1] for line in weights.lines] == last.target_weights
    assert [line.series.name for line in excess.lines] == ["unseen", "average"]
    assert last.target_reference is not None
    gap = last.target_loss["unseen"] - last.target_reference[0]
    assert excess.lines[0].series.values[-1] == pytest.approx(gap)
    page = build_report(run.directory).read_text()
    assert "of which the worst counts most" in page


@pytest.mark.parametrize(
    ("key", "value"),
    [("target_scores", [[1.0, 2.0]]), ("target_weights", [1.0]), ("target_reference", [1.0])],
)
def test_wrong_sizes_are_told(tmp_path: Path, key: str, value: Any) -> None:
    directory = write_run(tmp_path / "run", NAMES)
    edit(directory / "history.jsonl", lambda row: row.update({key: value}))
    with pytest.raises(UserError, match="outer step 1"):
        read_run(directory)
