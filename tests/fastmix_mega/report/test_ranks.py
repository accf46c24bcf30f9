from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastmix_mega.files import append_jsonl
from fastmix_mega.report.build import build_report
from fastmix_mega.report.ranks import ROWS, rank_table
from fastmix_mega.report.read import read_run
from tests.fastmix_mega.report.samples import write_run


def times(*own: float) -> dict[str, Any]:
    return {
        "step_seconds": [1.0] * len(own),
        "data_seconds": [0.1] * len(own),
        "forward_seconds": [each - 0.1 for each in own],
        "wait_seconds": [None] * len(own),
    }


def test_the_slowest_ranks_and_the_restarts_are_on_the_page(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run")
    page = build_report(run_dir).read_text()
    assert '<th scope="row">1</th><td data-value="0.4">400</td>' in page
    assert "1.64×" in page
    assert "<dt>Restarts after failures</dt>" in page
    assert "<dt>Changes of layout</dt>" in page
    # It went on with more processes: those before had other places.
    lines = read_run(run_dir).steps
    own = [0.5] * 20 + [0.9]
    row = lines[-1].model_dump() | {"step": lines[-1].step + 10, "ranks": times(*own)}
    append_jsonl(run_dir / "metrics.jsonl", row)
    table = rank_table(read_run(run_dir))
    assert table is not None
    assert (len(table.rows), table.count) == (ROWS, 21)
    assert (table.rows[0].rank, table.rows[0].wait) == (20, None)
    assert table.rows[0].ratio == pytest.approx(1.8)


def test_nothing_to_compare(tmp_path: Path) -> None:
    assert rank_table(read_run(write_run(tmp_path / "running", outer_steps=0))) is not None
    pooled = write_run(tmp_path / "pooled", seeds=3)
    assert 'id="ranks-title"' not in build_report(pooled).read_text()
