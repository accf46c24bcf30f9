"""The page of speeds names benchmarks that are there."""

from __future__ import annotations

import importlib.util

from benchmarks.speed import SHARES


def test_every_benchmark_is_a_module() -> None:
    modules = [command.split()[0] for command in SHARES]
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []


def test_the_parts_make_the_whole_time() -> None:
    assert abs(sum(SHARES.values()) - 1) < 1e-9
