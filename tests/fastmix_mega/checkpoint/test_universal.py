from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from fastmix_mega.checkpoint.universal import SWITCH, only_data


class Attack:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def test_what_deepspeed_opens_without_a_check_runs_nothing(tmp_path: Path) -> None:
    """Its own calls say `weights_only=False`."""
    file, mark = tmp_path / "fp32.pt", tmp_path / "ran"
    torch.save({"param": torch.ones(2)}, file)
    with only_data():
        assert torch.equal(torch.load(file, weights_only=False)["param"], torch.ones(2))
        torch.save({"param": Attack(mark)}, file)
        with pytest.raises(pickle.UnpicklingError):
            torch.load(file, weights_only=False)
    assert not mark.exists()
    assert SWITCH not in os.environ
