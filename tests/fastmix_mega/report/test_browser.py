"""The page in a real headless browser; skipped where no Chromium is installed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fastmix_mega.config.constraints import Constraints
from fastmix_mega.mixture.constraints.apply import ConstraintSet, Sources
from fastmix_mega.mixture.constraints.solve import Node, project
from fastmix_mega.mixture.file import read_mixture
from fastmix_mega.mixture.simplex import floored
from fastmix_mega.mixture.surface_file import read_surface_file
from fastmix_mega.report.build import build_report
from tests.fastmix_mega.mixture.constraints.test_solve import random_problem
from tests.fastmix_mega.report.browser import Browser, find_browser
from tests.fastmix_mega.report.samples import CASES, HOSTILE, LIMITS, write_run

EXECUTABLE = find_browser()
pytestmark = pytest.mark.skipif(EXECUTABLE is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert EXECUTABLE is not None
    with Browser(EXECUTABLE) as browser:
        yield browser


@pytest.mark.parametrize("case", CASES)
def test_no_complaints_no_requests_no_sideways_scrolling(
    case: str, browser: Browser, tmp_path: Path
) -> None:
    page = build_report(write_run(tmp_path / "run", **CASES[case]))
    for width, scheme in ((1280, "dark"), (390, "light"), (360, "light")):
        browser.open(page, width, scheme=scheme)
        assert browser.complaints == []
        assert browser.requests == [page.resolve().as_uri()]
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        shares = browser.evaluate(
            "[...document.querySelectorAll('.plot')].map(plot =>"
            " plot.querySelector('.canvas').offsetWidth / plot.offsetWidth)"
        )
        assert all(share > 0.45 for share in shares)


def test_hostile_names_stay_text(browser: Browser, tmp_path: Path) -> None:
    browser.open(build_report(write_run(tmp_path / "run", HOSTILE)))
    assert browser.evaluate("document.title") != "owned"
    rows = browser.evaluate(
        "[...document.querySelectorAll('#sources-table tbody th')].map(e => e.textContent)"
    )
    assert sorted(rows) == sorted(HOSTILE)


def test_labels_at_the_lines_ends_do_not_overlap(browser: Browser, tmp_path: Path) -> None:
    browser.open(build_report(write_run(tmp_path / "run")), 390)
    boxes = browser.evaluate(
        "[...document.querySelectorAll('.line-labels')].map(labels => [...labels.children]"
        ".map(e => e.getBoundingClientRect()).map(b => [b.top, b.bottom]))"
    )
    assert max(len(chart) for chart in boxes) == 8
    for chart in boxes:
        chart.sort()
        assert all(lower[0] >= upper[1] - 0.6 for upper, lower in itertools.pairwise(chart))


def test_the_line_under_the_pointer_is_read_out(browser: Browser, tmp_path: Path) -> None:
    browser.open(build_report(write_run(tmp_path / "run")))
    read = browser.evaluate(
        """(() => {
          const canvas = document.querySelector('[data-chart=trajectory] .canvas');
          const b = canvas.getBoundingClientRect();
          canvas.dispatchEvent(new PointerEvent('pointermove', {clientX: b.left + 1}));
          return document.querySelector('[data-chart=trajectory] .readout').innerText;
        })()"""
    )
    assert read.startswith("training step 0")
    assert read.count("12.5%") == 8
    assert browser.complaints == []


def test_the_table_sorts_by_a_column(browser: Browser, tmp_path: Path) -> None:
    browser.open(build_report(write_run(tmp_path / "run")))
    values = browser.evaluate(
        """(() => {
          const headers = [...document.querySelectorAll('#sources-table thead th')];
          const at = headers.findIndex(e => e.textContent === 'Tokens');
          headers[at].querySelector('button').click();
          const rows = [...document.querySelectorAll('#sources-table tbody tr')];
          return rows.map(e => +e.cells[at].dataset.value);
        })()"""
    )
    assert len(values) == 8
    assert values == sorted(values, reverse=True)


def _tree(node: Node) -> dict[str, Any]:
    groups = [_tree(group) for group in node.groups]
    own = {"low": node.lower, "high": node.upper, "sources": list(node.sources)}
    return own | {"groups": groups}


def test_the_page_solves_limits_as_the_export_does(browser: Browser, tmp_path: Path) -> None:
    """200 random problems with nested groups, fixed shares and caps."""
    browser.open(build_report(write_run(tmp_path / "run")))
    random = np.random.default_rng(5)
    problems = [random_problem(random) for _ in range(200)]

    given = [
        [_tree(root), p.tolist(), lower.tolist(), upper.tolist()]
        for root, p, lower, upper in problems
    ]
    found = browser.evaluate(f"({json.dumps(given)}).map(each => projection.project(...each))")
    wanted = [project(root, p, lower, upper) for root, p, lower, upper in problems]
    assert np.abs(np.array(found) - np.array(wanted)).max() < 1e-9
    impossible = [_tree(Node(1.0, 1.0, [0, 1])), [0.5, 0.5], [0.0, 0.0], [0.4, 0.4]]
    call = f"projection.project(...{json.dumps(impossible)})"
    assert (
        browser.evaluate(f"(() => {{ try {{ {call} }} catch (e) {{ return e.largest }} }})()")
        == 0.8
    )


def test_moving_a_slider_moves_the_mixture(browser: Browser, tmp_path: Path) -> None:
    """The page's shares and cost, against the constraints' own."""
    page = build_report(write_run(tmp_path / "run", **CASES["limited"]))
    mixture = read_mixture(tmp_path / "run" / "mixture.json")
    names = [source.name for source in mixture.sources]
    place = names.index("code")
    browser.open(page)
    browser.evaluate(
        f"""(() => {{
          const row = document.querySelector('#what-if [data-index="{place}"]');
          const slider = row.querySelector('[name=max]');
          slider.value = 12;
          slider.dispatchEvent(new Event('input'));
        }})()"""
    )
    texts = browser.evaluate(
        "Object.fromEntries([...document.querySelectorAll('#what-if [data-index]')]"
        ".map(e => [e.dataset.index, e.querySelector('.share').textContent]))"
    )
    limits = Constraints.model_validate(
        LIMITS | {"sources": LIMITS["sources"] | {"code": {"max": 0.12}}}
    )
    sources = Sources(names, [source.tokens for source in mixture.sources])
    weights = np.array([source.weight for source in mixture.sources])
    result = ConstraintSet(limits, sources, "limits").apply(weights / weights.sum())
    for index, share in enumerate(result.weights):
        assert abs(float(texts[str(index)].rstrip("%")) / 100 - share) < 6e-4
    verdict = browser.evaluate("document.querySelector('#what-if .verdict').textContent")
    cost = result.predicted_cost([source.gain for source in mixture.sources])
    assert cost is not None
    assert f"+{cost:.4f} nats" in verdict
    browser.evaluate("document.querySelector('#what-if [type=reset]').click()")
    assert browser.complaints == []


def test_the_page_solves_the_surface_as_python_does(browser: Browser, tmp_path: Path) -> None:
    """Weights of the targets, groups, caps and repetition; every number to 1e-9."""
    browser.open(build_report(write_run(tmp_path / "run", **CASES["surface"])))
    file = read_surface_file(tmp_path / "run" / "surface.json")
    random = np.random.default_rng(3)
    even = np.full(len(file.sources), 1 / len(file.sources))
    given, wanted = [], []
    for weights in ([1.0, 1.0], [1.0, 0.0], [0.2, 0.8]):
        lower, upper = np.zeros(len(even)), np.full(len(even), random.uniform(0.15, 0.5))
        root = Node(1.0, 1.0, [0, 1, 2, 3], [Node(0.1, 0.3, [4, 5]), Node(0.0, 1.0, [6, 7])])

        def allowed(mixture: np.ndarray, root: Node = root, upper: np.ndarray = upper) -> Any:
            assert file.most_share is not None
            every = Node(1.0, 1.0, range(len(mixture)))
            near = project(every, np.maximum(mixture, 1e-300), 0 * mixture, file.most_share)
            return project(root, near, 0 * mixture, upper)

        best = file.surface.best(np.array(weights), allowed)
        answer = allowed(floored(best))
        means, deviations = file.surface.differences(answer, even)
        wanted.append([*answer, *means, *deviations])
        given.append([weights, _tree(root), lower.tolist(), upper.tolist()])
    found = browser.evaluate(
        f"""(({json.dumps(given)}).map(([weights, root, low, high]) => {{
          const data = JSON.parse(document.getElementById('report-data').textContent).what_if;
          const surface = lossSurface.of(data.surface);
          const x = surface.answer(weights,
            mixture => projection.project(root, mixture, low, high));
          const gap = surface.differences(x, {even.tolist()});
          return [...x, ...gap.means, ...gap.deviations];
        }}))"""
    )
    assert np.abs(np.array(found) - np.array(wanted)).max() < 1e-9
    assert np.abs(np.array(wanted)[0] - np.array(wanted)[1])[: len(even)].max() > 0.02
    assert browser.complaints == []


def test_the_weights_of_the_targets_move_the_mixture(browser: Browser, tmp_path: Path) -> None:
    browser.open(build_report(write_run(tmp_path / "run", **CASES["surface"])))
    shares = "[...document.querySelectorAll('#what-if .share')].map(e => parseFloat(e.textContent))"
    before = browser.evaluate(shares)
    browser.evaluate(
        """(() => { const slider = document.querySelector('#what-if [name=weight]');
          slider.value = 0; slider.dispatchEvent(new Event('input')); })()"""
    )
    after = browser.evaluate(shares)
    assert max(abs(a - b) for a, b in zip(after, before, strict=True)) > 1
    verdict = browser.evaluate("document.querySelector('#what-if .verdict').textContent")
    assert "90% intervals: unseen " in verdict
    assert "for their mean as weighted here" in verdict
    assert " ± " in verdict
    taken = browser.evaluate("document.querySelector('#what-if .taken').textContent")
    assert sum(yaml.safe_load(taken)["mixture"].values()) == pytest.approx(1, abs=1e-4)
    # The front follows at leisure.
    wait = "new Promise(done => setTimeout(done, 400))"
    browser.call("Runtime.evaluate", expression=wait, awaitPromise=True)
    assert browser.evaluate("document.querySelectorAll('.front-rows li').length") == 11
    assert browser.evaluate("document.querySelectorAll('.front circle').length") == 11
    browser.evaluate("document.querySelector('#what-if [type=reset]').click()")
    assert browser.complaints == []


def test_limits_that_contradict_each_other_are_told(browser: Browser, tmp_path: Path) -> None:
    browser.open(build_report(write_run(tmp_path / "run")))
    browser.evaluate(
        """[...document.querySelectorAll('#what-if [name=max]')].forEach(slider => {
          slider.value = 5; slider.dispatchEvent(new Event('input')); })"""
    )
    verdict = browser.evaluate("document.querySelector('#what-if .verdict').textContent")
    assert "leave room for 40.0% only" in verdict
    assert browser.complaints == []


def test_it_prints(browser: Browser, tmp_path: Path) -> None:
    browser.open(build_report(write_run(tmp_path / "run")))
    assert browser.pdf().startswith(b"%PDF-")
    # Chromium repeats a table's head on every page only if no box in it resists being cut.
    browser.call("Emulation.setEmulatedMedia", media="print")
    display = "getComputedStyle(document.querySelector('#sources-table thead button')).display"
    assert browser.evaluate(display) == "contents"
    shown = "[...document.querySelectorAll('#what-if input')].filter(e => e.offsetParent).length"
    assert browser.evaluate(shown) == 0
    browser.call("Emulation.setEmulatedMedia", media="")
