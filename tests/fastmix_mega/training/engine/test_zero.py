from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fastmix_mega.data.indexed_writer import IndexedWriter
from fastmix_mega.training.engine.zero import reduction_bucket
from tests.launch import column, forked, run_config


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


@pytest.mark.distributed
def test_does_not_try_deepspeeds_operators(settings: dict[str, Any], tmp_path: Path) -> None:
    """On CUDA the trial takes seconds and tells of missing compilers, on every rank."""
    settings["train"]["steps"] = 6
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings | {"search": settings["search"] | {"every": 1}}))
    forked("train", str(path), fault="probe:0:1")


@pytest.mark.distributed
@pytest.mark.parametrize("zero", [1, 2])
def test_bf16_adds_gradients_up_in_fp32(
    settings: dict[str, Any], tmp_path: Path, zero: int
) -> None:
    """A source of one sequence: the mean gradient of 512 micro-batches is that of one. In bf16 a
    sum stops growing when what is added is below a 512th of it."""
    length = settings["train"]["seq_length"]
    with IndexedWriter(tmp_path / "one", np.dtype(np.uint16)) as writer:
        writer.add_document(np.arange(5, 5 + length + 1))
    settings["sources"] = [{"name": "one", "prefix": str(tmp_path / "one")}]
    settings |= {"precision": "bf16", "parallel": {"zero": zero}, "checkpoint": {"final": False}}
    norms = []
    for count in (1, 512):
        settings["train"] |= {"steps": 1, "global_batch": count, "micro_batch": 1}
        settings["train"]["schedule"]["warmup"] = 0
        run_dir = run_config("train", settings, tmp_path / str(count))
        norms.append(column(run_dir, "metrics.jsonl", "grad_norm")[0])
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)


def test_small_models_have_small_buckets() -> None:
    assert reduction_bucket(1000) == 1000
    assert reduction_bucket(70_000_000_000) == 200_000_000
