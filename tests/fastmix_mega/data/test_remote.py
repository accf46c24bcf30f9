"""Token files behind URLs: copied once, verified, whole or not at all. A store in memory stands for
the others; what is between is fsspec's own."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from fastmix_mega.configuration import parse_config
from fastmix_mega.data import remote
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.source import TokenSource
from fastmix_mega.errors import UserError
from fastmix_mega.planning.check import check
from fastmix_mega.training.identity import differences, record_run
from tests.full_disk import files_of_at_most

ENDINGS = ("bin", "idx", "manifest.json")


@pytest.fixture
def bucket(corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A store with alpha's and beta's three files each, and an empty cache."""
    monkeypatch.setenv(remote.CACHE_VARIABLE, str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    for name in ("alpha", "beta"):
        for ending in ENDINGS:
            store.pipe(f"/bucket/{name}.{ending}", (corpora / f"{name}.{ending}").read_bytes())
    yield store
    store.rm("/bucket", recursive=True)


def test_one_source_on_a_disk_and_in_a_store(corpora: Path, bucket: Any) -> None:
    """The same samples as from two files on the disk; the second opening copies nothing."""
    local = TokenSource("s", [str(corpora / "alpha"), str(corpora / "beta")], 16, seed=3)
    for _ in range(2):
        mixed = TokenSource("s", ["memory://bucket/alpha", str(corpora / "beta")], 16, seed=3)
        indices = np.arange(2 * mixed.num_samples)
        assert np.array_equal(mixed.samples(indices), local.samples(indices))
        # Only what is read at every start is still there.
        for ending in ("bin", "idx"):
            if bucket.exists(f"/bucket/alpha.{ending}"):
                bucket.rm(f"/bucket/alpha.{ending}")
    assert not list(remote.cache_folder().glob("*partial*"))


def test_swapped_missing_and_unreachable_files(bucket: Any) -> None:
    cache = remote.cache_folder()
    content = bytearray(bucket.cat_file("/bucket/alpha.bin"))
    content[100] ^= 1
    bucket.pipe("/bucket/alpha.bin", bytes(content))
    with pytest.raises(UserError, match=r"memory://bucket/alpha\.bin has another checksum"):
        IndexedTokens("memory://bucket/alpha")
    assert not list(cache.glob("*.bin*"))
    bucket.rm("/bucket/alpha.bin")
    with pytest.raises(UserError, match=r"alpha\.bin is missing"):
        IndexedTokens("memory://bucket/alpha")
    bucket.rm("/bucket/beta.manifest.json")
    with pytest.raises(UserError, match=r"beta\.manifest\.json is missing"):
        IndexedTokens("memory://bucket/beta")
    with pytest.raises(UserError, match="cannot read nosuch://bucket"):
        IndexedTokens("nosuch://bucket/beta")


@pytest.mark.usefixtures("bucket")
def test_a_full_disk_leaves_nothing() -> None:
    with (
        files_of_at_most(1000),
        pytest.raises(UserError, match="FASTMIX_CACHE names another folder"),
    ):
        IndexedTokens("memory://bucket/alpha")
    assert not [path for path in remote.cache_folder().iterdir() if path.suffix != ".lock"]
    assert IndexedTokens("memory://bucket/alpha").num_documents == 100


def test_a_run_checks_and_knows_them(settings: dict[str, Any], bucket: Any) -> None:
    settings["sources"][0]["prefix"] = "memory://bucket/alpha"
    settings["sources"][1]["prefix"] = ["memory://bucket/beta"]
    config = parse_config(settings)
    assert check(config, 1).mistakes == []
    record_run(config, "search")
    (Path(config.run_dir) / "checkpoints" / "step_1").mkdir(parents=True)
    assert differences(config, "search") == []
    # Somebody writes other data to the same place.
    for ending in ENDINGS:
        bucket.pipe(f"/bucket/alpha.{ending}", bucket.cat_file(f"/bucket/beta.{ending}"))
    (found,) = differences(config, "search")
    assert found.name == "data:memory://bucket/alpha"


def _open(url: str, cache: str, told: Any) -> None:
    import os

    os.environ[remote.CACHE_VARIABLE] = cache
    told.put(IndexedTokens(url).num_tokens)


def test_processes_copy_once_together(corpora: Path, tmp_path: Path) -> None:
    url, cache = f"file://{corpora}/alpha", tmp_path / "cache"
    context = multiprocessing.get_context("fork")
    told = context.Queue()
    processes = [context.Process(target=_open, args=(url, str(cache), told)) for _ in range(4)]
    for process in processes:
        process.start()
    counts = {told.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert counts == {IndexedTokens(corpora / "alpha").num_tokens}
    assert len([path for path in cache.iterdir() if path.suffix != ".lock"]) == 2
