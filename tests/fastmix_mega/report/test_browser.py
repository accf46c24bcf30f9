"""The page in a real headless browser; skipped where no Chromium is installed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastmix_mega.report.build import build_report
from tests.fastmix_mega.report.browser import Browser, find_browser
from tests.fastmix_mega.report.samples import CASES, HOSTILE, write_run

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
        "[...document.querySelectorAll('.sortable tbody th')].map(e => e.textContent)"
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
          const headers = [...document.querySelectorAll('.sortable thead th')];
          const at = headers.findIndex(e => e.textContent === 'Tokens');
          headers[at].querySelector('button').click();
          const rows = [...document.querySelectorAll('.sortable tbody tr')];
          return rows.map(e => +e.cells[at].dataset.value);
        })()"""
    )
    assert len(values) == 8
    assert values == sorted(values, reverse=True)


def test_it_prints(browser: Browser, tmp_path: Path) -> None:
    browser.open(build_report(write_run(tmp_path / "run")))
    assert browser.pdf().startswith(b"%PDF-")
    # Chromium repeats a table's head on every page only if no box in it resists being cut.
    browser.call("Emulation.setEmulatedMedia", media="print")
    display = "getComputedStyle(document.querySelector('.sortable thead button')).display"
    assert browser.evaluate(display) == "contents"
    browser.call("Emulation.setEmulatedMedia", media="")
