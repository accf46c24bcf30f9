"""Where a mixture comes from, your own mixture beside it, and what retraining says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastmix_mega.cli import main as cli
from fastmix_mega.errors import UserError
from fastmix_mega.report.build import build_report
from fastmix_mega.report.evidence import evidence_view
from fastmix_mega.report.read import read_run
from fastmix_mega.report.retrained import contradicted, retrained_view
from fastmix_mega.report.sources import view_mixture
from fastmix_mega.report.supports import EXHIBITS, supports
from tests.fastmix_mega.report.samples import CASES, write_run
from tests.fastmix_mega.report.surface_samples import retrained


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", **CASES["surface"])


def test_every_share_has_its_reason(run_dir: Path) -> None:
    run = read_run(run_dir)
    mixture = view_mixture(run)
    assert mixture is not None
    view = evidence_view(run, mixture)
    assert view is not None
    assert run.surface is not None
    assert len(view.reasons) == len(mixture.leaders) + 1
    leader = mixture.leaders[0]
    assert view.reasons[0].startswith(f"{leader.name}, ")
    assert "n-grams alone" in view.reasons[0]
    assert "scores alone" in view.reasons[0]
    # A worth is the surface's own difference.
    answer = [source.weight for source in mixture.sources]
    changed = [each * (1 - mixture.uniform) / (1 - leader.weight) for each in answer]
    changed[leader.index] = mixture.uniform
    means, _ = run.surface.surface.differences(
        *(run.surface.surface.reference * 0 + each for each in (changed, answer))
    )
    assert view.rows[0][2].startswith(f"{means.mean():+.3f}".replace("-", "−"))
    # The kinds disagree where one says much and the other little, and nowhere else.
    shares = run.search.evidence
    for source, cells, _ in view.rows:
        given = [shares[kind][source.name] for kind in ("ngrams", "scores")]
        apart = max(given) > mixture.uniform and min(given) < mixture.uniform / 2
        assert all(cell.alert == apart for cell in cells)
    page = build_report(run_dir).read_text()
    assert "Better than its start" in page
    assert "87%" in page
    assert "Does a source saturate?" not in page


def test_your_own_mixture_stands_beside_the_answer(run_dir: Path, tmp_path: Path) -> None:
    assert cli.main(["report", str(run_dir), "--baseline", "proportional"]) == 0
    page = (run_dir / "report.html").read_text()
    assert "yours, proportional" in page
    assert page.count('title="beside the even split"') == 4
    with pytest.raises(UserError, match="--baseline"):
        build_report(run_dir, "unifrom")
    plain = write_run(tmp_path / "plain")
    with pytest.raises(UserError, match=r"surface\.json"):
        build_report(plain, "uniform")


@pytest.mark.parametrize("right", [True, False])
def test_retraining_has_the_last_word(run_dir: Path, right: bool) -> None:
    gains = read_run(run_dir).search.predicted_gain.values()
    gain = sum(each["gain"] for each in gains) / 2
    retrained(run_dir, gain if right else gain + 2.0)
    view = retrained_view(read_run(run_dir))
    assert view is not None
    assert view.seeds == 2
    assert [row.holds for row in view.rows] == [right] * 2
    assert contradicted(view) == ([] if right else ["unseen", "average"])
    assert not right or view.wrong_levels == []
    page = build_report(run_dir).read_text()
    assert "Predicted before, seen after retraining" in page
    assert ("Retraining contradicts what was predicted" in page) is not right
    assert ("Loss at an even share instead" in page) is right
    assert ("retraining says otherwise" in page) is not right


def test_losses_that_are_elsewhere_than_predicted_are_not_shown(run_dir: Path) -> None:
    """Differences stay: they do not share that error."""
    gains = read_run(run_dir).search.predicted_gain.values()
    retrained(run_dir, sum(each["gain"] for each in gains) / 2, above=1.0)
    view = retrained_view(read_run(run_dir))
    assert view is not None
    assert view.wrong_levels == ["unseen", "average"]
    assert contradicted(view) == []
    page = build_report(run_dir).read_text()
    assert "contradicts the losses that were predicted for unseen: uniform " in page
    assert "retraining says otherwise" in page
    assert "Loss at an even share instead" in page


def test_of_another_answer_or_size_retraining_says_nothing(run_dir: Path) -> None:
    retrained(run_dir, 0.1)
    path = run_dir / "retrain" / "retrain.json"
    text = path.read_text()
    assert retrained_view(read_run(run_dir)) is not None
    path.write_text(text.replace('"train_tokens": ', '"train_tokens": 1'))
    assert retrained_view(read_run(run_dir)) is None
    path.write_text(text.replace('"junk": ', '"junk": 1'))
    assert retrained_view(read_run(run_dir)) is None
    path.write_text("{")
    with pytest.raises(UserError, match=r"retrain\.json is not JSON"):
        read_run(run_dir)


def test_the_surface_of_an_earlier_version_is_left_out(run_dir: Path) -> None:
    path = run_dir / "surface.json"
    path.write_text(path.read_text().replace("fastmix-surface/", "fastmix-surface/0"))
    assert read_run(run_dir).surface is None
    page = build_report(run_dir).read_text()
    assert "Where this mixture comes from" in page
    assert "Loss at an even share instead" not in page


def test_every_exhibit_says_what_it_is_for(run_dir: Path) -> None:
    run = read_run(run_dir)
    found = supports(run, view_mixture(run))
    assert set(found) == set(EXHIBITS)
    assert all(text.endswith(".") for text in found.values())
    page = build_report(run_dir).read_text()
    # A single evaluation makes no chart.
    assert page.count('class="supports"') == len(EXHIBITS) - 1
