"""The table before the first step, and what is told while statistics are read."""

from __future__ import annotations

import numpy as np
import pytest

from fastmix_mega.mixture import counting
from fastmix_mega.training.beginning import SHOWN, beginning


def test_shares_and_epochs_of_this_run() -> None:
    lines = beginning(["docs", "code"], [2_000, 1_000_000], np.array([0.75, 0.25]), 4_000)
    assert lines[0] == "the run begins with this mixture, and reads 4k tokens:"
    assert lines[2].split() == ["docs", "75.00%", "2k", "1.50"]
    assert lines[3].split() == ["code", "25.00%", "1M", "0.00"]


def test_of_many_sources_the_largest_shares() -> None:
    shares = np.array([0.01, *[0.98 / SHOWN] * SHOWN, 0.01])
    lines = beginning([f"s{n}" for n in range(len(shares))], [100] * len(shares), shares, 100)
    assert len(lines) == SHOWN + 3
    assert lines[-1] == "and 2 more sources with 2.00% in all"


def test_long_reading_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(counting.told("abc", "reading sources")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(counting, "SECONDS_BETWEEN_LINES", 0.0)
    assert list(counting.told("abc", "reading sources")) == ["a", "b", "c"]
    told = [line.strip() for line in capsys.readouterr().err.splitlines()]
    start = "n-gram statistics: reading sources"
    assert told == [f"{start}, 1 of 3", f"{start}, 2 of 3"]
