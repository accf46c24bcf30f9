from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from fastmix_mega.checkpoint.io import UnreadableTensors, load_tensors, write_tensors
from fastmix_mega.checkpoint.manifest import record_file
from tests.full_disk import files_of_at_most


class Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo must never run",)


def test_our_state_round_trips(tmp_path: Path) -> None:
    state = {"drawn": np.arange(4), "log": [np.ones(3), 2.5], "sums": torch.ones(2), "none": None}
    state["empty"] = np.array([])
    record = write_tensors(tmp_path / "state.pt", state)
    assert record == record_file(tmp_path / "state.pt")
    found = load_tensors(tmp_path / "state.pt")
    assert np.array_equal(found["drawn"], state["drawn"])
    assert np.array_equal(found["log"][0], np.ones(3))
    assert torch.equal(found["sums"], torch.ones(2))
    assert found["empty"].shape == (0,)


def test_code_in_a_checkpoint_never_runs(tmp_path: Path) -> None:
    torch.save({"state": Attack()}, tmp_path / "state.pt")
    with pytest.raises(UnreadableTensors, match="could run a program"):
        load_tensors(tmp_path / "state.pt")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_full_disk_is_an_error_that_can_be_caught() -> None:
    with pytest.raises(OSError, match="No space left on device"):
        write_tensors(Path("/dev/full"), {"weights": torch.ones(100_000)})


def test_a_file_that_is_cut_short_is_told_in_the_disks_words(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match=r"state.pt: File too large$"),
        files_of_at_most(50_000),
    ):
        write_tensors(tmp_path / "state.pt", {"weights": torch.ones(100_000)})
