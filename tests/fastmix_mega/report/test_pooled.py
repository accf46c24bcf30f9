"""A folder of several seeds: its page, and what a run cost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fastmix_mega.errors import UserError
from fastmix_mega.report.build import build_report
from fastmix_mega.report.figures import trajectory
from fastmix_mega.report.findings import confidence, headline, lead
from fastmix_mega.report.pooled import is_pooled, read_pooled
from fastmix_mega.report.read import read_run
from fastmix_mega.report.run_cost import machine_hours, seconds
from fastmix_mega.report.sources import view_mixture
from tests.fastmix_mega.report.samples import write_run


@pytest.fixture
def pooled(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs", seeds=3, outer_steps=12)


def test_the_seeds_are_averaged_with_their_spread(pooled: Path) -> None:
    run = read_pooled(pooled)
    own = [read_run(pooled / f"seed_{seed}") for seed in (1, 2, 3)]
    mixtures = np.array([each.history[5].mixture for each in own])
    mean = np.exp(np.log(mixtures).mean(axis=0))
    np.testing.assert_allclose(run.history[5].mixture, mean / mean.sum())
    wanted = mixtures.std(axis=0, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(run.history[5].mixture_stderr, wanted)
    assert run.history[5].counts == np.sum([each.history[5].counts for each in own], 0).tolist()
    mixture = view_mixture(run)
    assert mixture is not None
    chart = trajectory(run, mixture)
    assert chart is not None
    assert all(line.band.startswith("M") for line in chart.lines)
    assert "3 proxy runs (seeds 1, 2 and 3)" in lead(run, mixture)
    assert "mean over 3 seeds" in " ".join(confidence(run, mixture))


def test_seeds_that_disagree_are_the_headline(pooled: Path) -> None:
    path = pooled / "mixture.json"
    content = json.loads(path.read_text())
    content["search"]["confident"] = False
    path.write_text(json.dumps(content))
    run = read_pooled(pooled)
    assert headline(run, view_mixture(run)).startswith("The 3 seeds disagree")


def test_the_page_shows_every_seed_and_can_be_moved(pooled: Path, tmp_path: Path) -> None:
    shutil.move(pooled, tmp_path / "elsewhere")
    assert is_pooled(tmp_path / "elsewhere")
    text = build_report(tmp_path / "elsewhere").read_text()
    assert text.count('<circle class="seed"') == 1 + 3 * 8
    shutil.rmtree(tmp_path / "elsewhere" / "seed_2")
    with pytest.raises(UserError, match="not there"):
        build_report(tmp_path / "elsewhere")


def test_machine_hours_are_wall_time_times_processes(pooled: Path) -> None:
    one = read_run(pooled / "seed_1")
    tokens = one.steps[-1].tokens
    assert seconds(one.steps) == pytest.approx(tokens / 14000, rel=0.05)
    found = machine_hours(one)
    assert found is not None
    hours = float(found[0].split()[0])
    assert hours == pytest.approx(2 * seconds(one.steps) / 3600, rel=0.01)
    assert found[0].endswith("CPU-hours")
    whole = machine_hours(read_pooled(pooled))
    assert whole is not None
    assert float(whole[0].split()[0]) == pytest.approx(3 * hours, rel=0.05)
