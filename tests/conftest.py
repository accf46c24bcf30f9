"""Shared fixtures: small real token files, and a configuration over them."""

from __future__ import annotations

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


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process, of other tests, leave the variables of a world of one process."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


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
