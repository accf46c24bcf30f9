"""torchtitan's composition in Python (2026-08), with its classes as its source has them."""

from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from fastmix_mega.errors import UserError
from fastmix_mega.export.export import export_mixture
from fastmix_mega.export.take import import_mixture
from fastmix_mega.mixture.file import read_mixture
from tests.fastmix_mega.export.conftest import SHARES


def frozen(name: str, *fields: Any) -> type:
    return dataclasses.make_dataclass(name, fields, frozen=True, kw_only=True, slots=True)


def configurable(name: str, *fields: Any) -> type:
    return type(name, (), {"Config": frozen(f"{name}Config", *fields)})


@pytest.fixture
def torchtitan(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Fields and defaults of torchtitan's main at b5bcd76c6; what they build needs its grain."""
    data = types.ModuleType("torchtitan.components.data")
    optional = dataclasses.field(default=())
    classes = {
        "ConcatThenSplitPackingConfig": frozen("ConcatThenSplitPackingConfig", ("dataset", Any)),
        "DatasetMixConfig": frozen("DatasetMixConfig", ("datasets", tuple)),
        "WeightedDataset": frozen(
            "WeightedDataset",
            ("dataset", Any),
            ("weight", float, dataclasses.field(default=1.0)),
        ),
        "SingleDatasetConfig": frozen(
            "SingleDatasetConfig",
            ("source", Any),
            ("pre_filters", tuple, optional),
            ("processor", Any, dataclasses.field(default=None)),
            ("post_filters", tuple, optional),
        ),
        "IndexedJsonlSource": configurable("IndexedJsonlSource", ("patterns", tuple)),
    }
    for name, each in classes.items():
        setattr(data, name, each)
    text = types.ModuleType("torchtitan.hf_datasets.text_datasets")
    text.TextProcessor = configurable("TextProcessor", ("text_fn", Any))  # type: ignore[attr-defined]
    for module in (data, text):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for parent in ("torchtitan", "torchtitan.components", "torchtitan.hf_datasets"):
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    return data


def test_every_source_is_packed_by_itself(
    row_mixture: Path, tmp_path: Path, torchtitan: types.ModuleType
) -> None:
    path = export_mixture(
        row_mixture, "torchtitan-main", tmp_path / "mix.py", paths="/data/{name}/*.jsonl"
    ).path
    names: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), names)
    mix = names["mixture"]()
    assert isinstance(mix, torchtitan.DatasetMixConfig)
    assert [each.weight for each in mix.datasets] == list(SHARES.values())
    for name, each in zip(SHARES, mix.datasets, strict=True):
        # Weights of packed children count rows of one length; of bare ones, documents.
        assert isinstance(each.dataset, torchtitan.ConcatThenSplitPackingConfig)
        documents = each.dataset.dataset
        assert documents.source.patterns == (f"/data/{name}/*.jsonl",)
        assert documents.processor.text_fn({"text": "a"}) == "a"


def test_import_runs_nothing(row_mixture: Path, tmp_path: Path) -> None:
    path = export_mixture(row_mixture, "torchtitan-main", tmp_path / "x", paths="{name}").path
    path.write_text("raise SystemExit(3)\n" + path.read_text())
    import_mixture(path, "torchtitan-main", tmp_path / "m.json")
    found = {each.name: each.weight for each in read_mixture(tmp_path / "m.json").sources}
    assert found == SHARES


@pytest.mark.parametrize("text", ["(", "a = 1", "SOURCES = open('x')", "SOURCES = ((1, 2),)"])
def test_broken(tmp_path: Path, text: str) -> None:
    (tmp_path / "given").write_text(text)
    with pytest.raises(UserError, match=r"Python|SOURCES"):
        import_mixture(tmp_path / "given", "torchtitan-main", tmp_path / "out.json")
