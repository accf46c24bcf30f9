"""Paths with `~` and `$NAME`; numbers with units."""

from __future__ import annotations

import pytest

from fastmix_mega.paths import expand, rule_for
from fastmix_mega.quantities import in_bytes, in_epochs, in_seconds, parse_quantity, with_unit


def test_home_and_variables_are_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "/scratch")
    monkeypatch.delenv("MISSING", raising=False)
    assert expand("~/x") == "/home/me/x"
    assert expand("$DATA/a/${DATA}") == "/scratch/a//scratch"
    assert expand("s3://bucket/a~b") == "s3://bucket/a~b"
    for path in ("$MISSING/x", "a/${MISSING}"):
        with pytest.raises(ValueError, match="the environment variable MISSING, which is not set"):
            expand(path)
    with pytest.raises(ValueError, match="there is no user 'nobody-of-this-name'"):
        expand("~nobody-of-this-name/x")


def test_the_rule_for_relative_paths_is_told() -> None:
    assert "taken from the current folder, /" in rule_for("data/x")
    assert rule_for("/data/x") == rule_for("s3://data/x") == ""


@pytest.mark.parametrize(
    ("text", "value"),
    [("2T", 2 * 10**12), ("1.5k", 1500), ("1e3", 1000), ("20,000", 20_000), ("300b", 3 * 10**11)],
)
def test_quantities(text: str, value: int) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "k", "2TT", "1.0005k", "many", "1e999", "0x10", "nan"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        parse_quantity(text)


def test_figures_that_a_person_reads() -> None:
    assert [in_bytes(x) for x in (0, 999, 1e3, 20_123_456, 1.5e12)] == [
        *("0 bytes", "999 bytes", "1 kB", "20.1 MB", "1.5 TB")
    ]
    assert [in_seconds(x) for x in (2.5, 0.02, 3e-6)] == ["2.5 s", "20 ms", "3 µs"]
    assert [in_epochs(x) for x in (0.123, 12, 7467674.0)] == ["0.12", "12.00", "7.47M"]
    assert [with_unit(x) for x in (870, 999_960, 3.4e9)] == ["870", "1M", "3.4B"]
