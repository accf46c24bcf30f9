from __future__ import annotations

from pathlib import Path

import pytest

from fastmix_mega.config.sections import ParallelSection
from fastmix_mega.files import write_atomic
from fastmix_mega.parallel import layout as parallel_layout
from fastmix_mega.training.refusals import refusal_on_main
from tests.full_disk import files_of_at_most


def test_what_a_disk_refuses_is_told_and_other_errors_are_raised(tmp_path: Path) -> None:
    with parallel_layout.start(ParallelSection()) as layout:
        assert refusal_on_main(layout, lambda: write_atomic(tmp_path / "a", bytes(100))) is None
        with files_of_at_most(20):
            refusal = refusal_on_main(layout, lambda: write_atomic(tmp_path / "b", bytes(100)))
        assert refusal == "File too large"
        with pytest.raises(FileNotFoundError):
            refusal_on_main(layout, lambda: (tmp_path / "none" / "a").touch())
