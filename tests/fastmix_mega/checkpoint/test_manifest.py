from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastmix_mega.checkpoint.manifest import (
    CheckpointManifest,
    DamagedCheckpoint,
    problems,
    read_manifest,
    record_file,
)


def checkpoint(directory: Path, name: str = "a.pt") -> CheckpointManifest:
    (directory / "a.pt").write_bytes(b"tensors")
    manifest = CheckpointManifest(
        step=1,
        world_size=1,
        layout={},
        versions={},
        files={name: record_file(directory / "a.pt")},
    )
    manifest.write(directory)
    return manifest


def test_whole_files_pass_and_others_do_not_matter(tmp_path: Path) -> None:
    manifest = checkpoint(tmp_path)
    (tmp_path / "universal").mkdir()
    (tmp_path / "universal" / "later.pt").write_bytes(b"more")
    assert read_manifest(tmp_path) == manifest
    assert problems(tmp_path, manifest, ["a.pt"]) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"tensorz", "another checksum"),
        (b"tens", "4 bytes instead of 7"),
        (None, "No such file"),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    manifest = checkpoint(tmp_path)
    (tmp_path / "a.pt").unlink()
    if content is not None:
        (tmp_path / "a.pt").write_bytes(content)
    (found,) = problems(tmp_path, manifest, ["a.pt"])
    assert found.startswith("a.pt")
    assert said in found


@pytest.mark.parametrize("name", ["../a.pt", "/etc/passwd", "b/../../a.pt", "c\\a.pt", ""])
def test_no_path_escapes(tmp_path: Path, name: str) -> None:
    checkpoint(tmp_path, name)
    with pytest.raises(DamagedCheckpoint, match="no file of a checkpoint"):
        read_manifest(tmp_path)


def test_links_out_are_refused(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside.pt"
    inside.mkdir()
    manifest = checkpoint(inside)
    (inside / "a.pt").rename(outside)
    (inside / "a.pt").symlink_to(outside)
    assert problems(inside, manifest, ["a.pt"]) == ["a.pt leads out of the checkpoint"]


@pytest.mark.parametrize("text", ["{torn", "[]", "{}", json.dumps({"schema": "other/9"})])
def test_broken_manifests(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DamagedCheckpoint, match="broken"):
        read_manifest(tmp_path)
