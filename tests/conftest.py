"""Shared fixtures: small real token files, and a configuration over them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.launch import hide_gpus
from tests.tiny import chat_settings, tiny_settings, write_conversations, write_corpora

hide_gpus()

# How long an example takes is no question of right or wrong, least of all on a busy machine.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""What a run in this process leaves behind: the variables of a world of one process."""


@contextmanager
def _launcher_restored() -> Iterator[None]:
    before = {name: os.environ[name] for name in LAUNCHED if name in os.environ}
    yield
    for name in LAUNCHED:
        os.environ.pop(name, None)
    os.environ.update(before)


LONG_FIRST = ("tests/slurm/", "tests/stress/test_fault_campaign.py", "tests/hostcuda/")
"""These files take minutes each: begun last, they would keep one worker while others are idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONG_FIRST))


@pytest.fixture(autouse=True, scope="module")
def _no_launcher() -> Iterator[None]:
    """No module sees another's; a layout of a module's own keeps its variables until its end."""
    with _launcher_restored():
        for name in LAUNCHED:
            os.environ.pop(name, None)
        yield


@pytest.fixture(autouse=True)
def _no_test_leaves_a_launcher(_no_launcher: None) -> Iterator[None]:
    with _launcher_restored():
        yield


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("corpora")
    write_corpora(directory)
    write_conversations(directory)
    return directory


@pytest.fixture
def settings(corpora: Path, tmp_path: Path) -> dict[str, Any]:
    return tiny_settings(corpora, tmp_path / "run")


@pytest.fixture
def chats(corpora: Path, tmp_path: Path) -> dict[str, Any]:
    """As `settings`, over conversations."""
    return chat_settings(corpora, tmp_path / "run")
