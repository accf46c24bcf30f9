"""The judge's bookkeeping: nothing is run twice, nothing of other corpora is mixed in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastmix_mega.errors import UserError
from research.mixture_quality import pending
from research.quality.jobs import EVALUATION_SEEDS, SWARM_SEED, Plan
from research.quality.mixtures import fitted_mixture, swarm_mixture, swarm_results
from research.quality.packages import pieces
from research.quality.records import Record, Records
from research.quality.table import report

SOURCES = ["good", "fair", "junk"]
PLAN = Plan(SOURCES, ["one", "two"], [])
BEST = np.array([0.6, 0.4, 0.0])


def loss(weights: np.ndarray, seed: int) -> float:
    """Least at `BEST`; every seed shifts all mixtures alike."""
    return 4 + float(((weights - BEST) ** 2).sum()) + 0.01 * (seed % 7)


def fill(records: Records) -> None:
    """Do all jobs of `PLAN` with a known loss instead of trainings."""
    searched = np.array([0.55, 0.4, 0.05])
    for job in PLAN.jobs():
        if job.kind == "search":
            details = {"gains": [1.0, 0.5, 0.0]}
            record = Record("search", job.name, job.seed, searched.tolist(), {}, 1.1, 1.0, details)
        else:
            kind, *rest = job.name.split(".")
            weights = {
                "uniform": np.full(3, 1 / 3),
                "swarm": swarm_mixture(int(rest[0]), 3) if kind == "swarm" else None,
                "single": np.eye(3)[SOURCES.index(rest[0])] if kind == "single" else None,
                "fastmix": searched,
            }.get(kind, BEST)
            assert weights is not None
            losses = dict.fromkeys(PLAN.targets, loss(weights, job.seed))
            record = Record("train", job.name, job.seed, weights.tolist(), losses)
        records.add(record)


def test_finished_runs_are_not_pending_after_a_restart(tmp_path: Path) -> None:
    records = Records(tmp_path / "family.jsonl", {"sources": SOURCES})
    first = PLAN.jobs()[0]
    assert pending(PLAN, records)[0] == first
    records.add(Record("train", first.name, first.seed, [1 / 3] * 3, {"one": 1.0, "two": 2.0}))
    again = Records(tmp_path / "family.jsonl", {"sources": SOURCES})
    assert again.get("train", first.name, first.seed) == records.get("train", *_key(first))
    assert first not in pending(PLAN, again)
    assert len(pending(PLAN, again)) == len(PLAN.jobs()) - 1
    with pytest.raises(UserError, match="differ in sources"):
        Records(tmp_path / "family.jsonl", {"sources": SOURCES[:2]})


def test_the_order_in_which_runs_finish_changes_no_table(tmp_path: Path) -> None:
    identity = {"sources": SOURCES}
    records = Records(tmp_path / "family.jsonl", identity)
    fill(records)
    backwards = Records(tmp_path / "backwards.jsonl", identity)
    for record in reversed(records.all()):
        backwards.add(record)
    tables = [
        report("family", SOURCES, PLAN.targets, Records(tmp_path / f"{name}.jsonl", identity))
        for name in ("family", "backwards")
    ]
    assert tables[0] == tables[1]


def test_looking_makes_no_file(tmp_path: Path) -> None:
    assert not Records(tmp_path / "family.jsonl", {}).all()
    assert not list(tmp_path.iterdir())


def test_a_torn_record_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "family.jsonl"
    fill(Records(path, {"sources": SOURCES}))
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    records = Records(path, {"sources": SOURCES})
    (lost,) = pending(PLAN, records)
    assert lost == PLAN.jobs()[-1]
    fill(records)
    assert path.read_bytes().startswith(content[: content[:-1].rindex(b"\n")])
    assert not pending(PLAN, Records(path, {"sources": SOURCES}))


def _key(job: object) -> tuple[str, int]:
    return job.name, job.seed  # type: ignore[attr-defined]


def test_every_round_is_a_table_of_its_own() -> None:
    """No job is planned twice; a search comes before the training of what it finds."""
    jobs = PLAN.jobs()
    assert len(jobs) == len(set(jobs))
    places = {(job.kind, job.name, job.seed): place for place, job in enumerate(jobs)}
    for (kind, name, seed), place in places.items():
        if kind == "search":
            number = EVALUATION_SEEDS[seed - 1]
            assert places["train", f"{name}.s{seed}", number] == place + 1


def test_the_report_tells_better_from_worse(tmp_path: Path) -> None:
    records = Records(tmp_path / "family.jsonl", {"sources": SOURCES})
    fill(records)
    text = report("family", SOURCES, PLAN.targets, records)
    row = next(line for line in text.splitlines() if line.startswith("| fastmix |"))
    expected = loss(np.array([0.55, 0.4, 0.05]), 0) - loss(np.full(3, 1 / 3), 0)
    assert f"{expected:+.4f}" in row
    assert "| 5.0% |" in row
    assert row.endswith("better |")
    verdicts = next(line for line in text.splitlines() if line.startswith("| one |"))
    assert "better" in verdicts.split("|")[2]
    assert "worse" in verdicts.split("|")[3]


def test_a_prefix_of_the_swarm_is_fitted(tmp_path: Path) -> None:
    records = Records(tmp_path / "family.jsonl", {"sources": SOURCES})
    fill(records)
    found = swarm_results(records, 24, "one")
    assert found is not None
    mixtures, losses = found
    assert len(losses) == 24
    assert losses[5] == loss(swarm_mixture(5, 3), SWARM_SEED)
    fitted = fitted_mixture(mixtures, losses, seed=0)
    assert loss(fitted, 0) < loss(np.full(3, 1 / 3), 0)
    assert swarm_results(Records(tmp_path / "new.jsonl", {}), 1, "one") is None


def test_a_dictionary_is_cut_before_headwords() -> None:
    entries = [f"word{number}\n  meaning {'x' * 3000}" for number in range(7)]
    found = pieces("\n\n".join(entries))
    assert [piece.count("word") for piece in found] == [3, 3, 1]
    assert "\n\n".join(found) == "\n\n".join(entries)
