"""What the launcher makes of the exit codes of its processes."""

from __future__ import annotations

import signal

import pytest

from fastmix_mega.cli.launch import _exit_code
from fastmix_mega.errors import EXIT_DECIDED


@pytest.mark.parametrize(
    ("code", "wanted"), [(-signal.SIGKILL, 137), (75, 75), (1, 1), (EXIT_DECIDED, 1)]
)
def test_exit_codes(code: int, wanted: int) -> None:
    assert _exit_code(int(code)) == wanted
