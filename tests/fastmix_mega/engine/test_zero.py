from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastmix_mega.engine.zero import reduction_bucket
from tests.launch import run_config


@pytest.mark.distributed
def test_starts_without_compiling_anything(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = tmp_path / "caches"
    for name in ("TORCH_EXTENSIONS_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, str(caches / name))
    for name in ("CC", "CXX"):
        # A compiler that is called ends the run.
        monkeypatch.setenv(name, "/bin/false")
    settings["train"]["steps"] = 12
    settings["search"] |= {"warmup": 4, "every": 4}
    settings["train"]["schedule"]["warmup"] = 2
    run_config("search", settings, tmp_path, processes=2, cold=True)
    made = [path for path in caches.rglob("*") if path.is_file()] if caches.exists() else []
    assert made == []


def test_small_models_have_small_buckets() -> None:
    assert reduction_bucket(1000) == 1000
    assert reduction_bucket(70_000_000_000) == 200_000_000
