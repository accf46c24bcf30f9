"""These tests are skipped, with the reason, where hostcuda cannot be compiled."""

from __future__ import annotations

import pytest

from tests.hostcuda import build


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> None:
    if reason := build.why_not():
        pytest.skip(reason)
    build.library()
