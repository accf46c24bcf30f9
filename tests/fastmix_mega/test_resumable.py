"""State that a checkpoint keeps: named once, plain, and complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastmix_mega.checkpoint.io import load_tensors, write_tensors
from fastmix_mega.resumable import Resumable


class Inner(Resumable):
    resumes = ("total", "rows")

    def __init__(self) -> None:
        self.total = 0.0
        self.rows: list[np.ndarray] = []


class Outer(Resumable):
    """Also a property with a setter, and something that is not kept."""

    resumes = ("count", "name", "last", "tensor", "inner", "doubled", "by_name")

    def __init__(self) -> None:
        self.count = 0
        self.name = "new"
        self.last: float | None = None
        self.tensor = torch.zeros(2)
        self.inner = Inner()
        self.by_name: dict[str, int] = {}
        self.half = 0.0
        self.seconds = 0.0

    @property
    def doubled(self) -> float:
        return 2 * self.half

    @doubled.setter
    def doubled(self, value: float) -> None:
        self.half = value / 2


class Outermost(Resumable):
    resumes = ("outer",)

    def __init__(self) -> None:
        self.outer = Outer()


def used() -> Outermost:
    found = Outermost()
    outer = found.outer
    outer.count, outer.name, outer.last, outer.half, outer.seconds = 3, "used", 0.1, 1.25, 9.0
    outer.tensor = torch.tensor([1.5, -2.0])
    outer.by_name = {"a": 1}
    outer.inner.total = 1 / 3
    outer.inner.rows = [np.array([1, 2]), np.array([3, 4])]
    return found


def test_a_round_trip_through_a_checkpoints_file_restores_all_that_is_named(tmp_path: Path) -> None:
    """Nested objects too; the file is read by the loader that builds plain values only."""
    first, second = used(), Outermost()
    inner = second.outer.inner
    write_tensors(tmp_path / "state.pt", first.state())
    second.load(load_tensors(tmp_path / "state.pt"))
    outer = second.outer
    assert (outer.count, outer.name, outer.last, outer.half) == (3, "used", 0.1, 1.25)
    assert torch.equal(outer.tensor, torch.tensor([1.5, -2.0]))
    assert outer.by_name == {"a": 1}
    # Loaded into the object that others may hold already.
    assert outer.inner is inner
    assert inner.total == 1 / 3
    assert [row.tolist() for row in inner.rows] == [[1, 2], [3, 4]]
    assert outer.seconds == 0.0


def test_the_state_holds_no_objects_of_this_project() -> None:
    def require_plain(value: Any) -> None:
        assert not isinstance(value, Resumable)
        if isinstance(value, dict):
            for each in value.values():
                require_plain(each)

    state = used().state()
    require_plain(state)
    assert state["outer"].keys() == set(Outer.resumes)


def test_nothing_is_kept_where_nothing_is_named() -> None:
    class Plain(Resumable):
        pass

    assert Plain().state() == {}
    Plain().load({})
