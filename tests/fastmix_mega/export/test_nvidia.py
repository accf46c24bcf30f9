"""Automodel and Energon by their own code; Nemotron by a reader written from its source."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from fastmix_mega.errors import UserError
from fastmix_mega.export.export import export_mixture
from fastmix_mega.export.take import import_mixture, read_blends
from fastmix_mega.mixture.file import read_mixture
from tests.fastmix_mega.export.conftest import ROWS, SHARES, token_shares
from tests.fastmix_mega.export.consumers import read_with


def test_automodel(row_mixture: Path) -> None:
    read = read_with(
        "automodel", export_mixture(row_mixture, "automodel", row_mixture.with_name("x")).path
    )
    assert read["sampling"] == read["objective"] == pytest.approx(SHARES)
    assert read["multipliers"] == pytest.approx([1, 1, 1])


def test_automodel_sampled_otherwise(tmp_path: Path) -> None:
    """The objective is the mixture; that the domains are sampled otherwise is told."""
    domains = [
        {"name": "a", "sampling_weight": 1, "objective_weight": 3},
        {"name": "b", "sampling_weight": 1, "objective_weight": 1},
    ]
    (tmp_path / "x").write_text(yaml.safe_dump({"domain_mixture": {"domains": domains}}))
    lines = import_mixture(tmp_path / "x", "automodel", tmp_path / "m.json")
    assert [each.weight for each in read_mixture(tmp_path / "m.json").sources] == [0.75, 0.25]
    assert any("each loss counts 0.5 to 1.5 times" in line for line in lines)


def test_energon(row_mixture: Path) -> None:
    """Its strict parser takes the file; a sample is a row."""
    path = export_mixture(row_mixture, "energon", row_mixture.with_name("x"), paths="{name}").path
    drawn = {each["path"]: each["weight"] for each in read_with("energon", path)}
    assert token_shares(drawn) == pytest.approx(SHARES)
    path = export_mixture(
        row_mixture,
        "energon-epochized",
        row_mixture.with_name("x"),
        budget_tokens=27_000,
        paths="{name}",
    ).path
    read = {
        each["path"]: each["repetitions"] * ROWS[each["path"]][0]
        for each in read_with("energon", path)
    }
    assert token_shares(read) == pytest.approx(SHARES)


def test_energon_within_energon(tmp_path: Path) -> None:
    """Weights are normalised within each blend and multiplied, as metadataset_v2 does."""

    def write(name: str, blend: list[dict[str, object]]) -> None:
        head = {"__module__": "megatron.energon", "__class__": "MetadatasetV2"}
        (tmp_path / name).write_text(yaml.safe_dump(head | {"splits": {"train": {"blend": blend}}}))

    write("inner.yaml", [{"weight": 1, "path": "a"}, {"weight": 3, "path": "b"}])
    write("outer.yaml", [{"weight": 2, "path": "inner.yaml"}, {"weight": 2, "path": "a"}])
    (blend,) = read_blends(tmp_path / "outer.yaml", "energon")
    assert [(Path(part.path).name, part.weight) for part in blend.parts] == [
        ("a", 0.125),
        ("b", 0.375),
        ("a", 0.5),
    ]
    write("inner.yaml", [{"weight": 1, "path": "outer.yaml"}])
    with pytest.raises(UserError, match="names itself"):
        read_blends(tmp_path / "outer.yaml", "energon")


def read_nemotron(path: Path) -> list[str]:
    """The words of Megatron's blend, as Nemotron's data_prep (2026-08) makes them of its model of a
    blend: weights as they are, those of 0 left out, 1.0 by default."""
    content = json.loads(path.read_text())
    assert ("datasets" in content) != bool({"train", "valid", "test"} & set(content))
    words = []
    for entry in content["datasets"]:
        assert isinstance(entry["name"], str)
        assert isinstance(entry["path"], str)
        if (weight := float(entry.get("weight", 1.0))) > 0:
            words += [str(weight), entry["name"]]
    return words


def test_nemotron(row_mixture: Path) -> None:
    path = export_mixture(
        row_mixture, "nemotron", row_mixture.with_name("x"), paths="hf://team/{name}"
    ).path
    assert read_nemotron(path) == ["0.5", "short", "0.3", "long", "0.2", "rare"]


def test_nemotron_published(tmp_path: Path) -> None:
    """As Nemotron 3 Ultra's phase 1 is laid out: percentages, some without data."""
    content = {
        "_missing_categories": {"code": {"weight": 14.0}, "academic": {"weight": 1.6}},
        "datasets": [
            {"name": "crawl", "path": "hf://n/cc", "subset": "High", "weight": 60.0},
            {"name": "math", "path": "hf://n/math", "subset": "4plus", "weight": 24.4},
            {"name": "wiki", "path": "hf://n/wiki"},
        ],
    }
    (tmp_path / "x").write_text(json.dumps(content))
    lines = import_mixture(tmp_path / "x", "nemotron", tmp_path / "m.json")
    assert "without a weight, so 1.0: wiki" in lines
    assert any("code, academic) have weights of 15.6 in all" in line for line in lines)
    weights = [each.weight for each in read_mixture(tmp_path / "m.json").sources]
    assert weights == pytest.approx([60 / 85.4, 24.4 / 85.4, 1 / 85.4])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("automodel", "domain_mixture: {domains: [{name: a}]}", "lacks `sampling_weight`"),
        ("automodel", "domain_mixture: 3", "must hold `domains`"),
        ("energon", "splits: {val: {}}", "no split `train`"),
        ("energon", "splits: {train: {blend: [{weight: 1, join: []}]}}", "joined"),
        ("nemotron", "[1]", "no JSON object"),
        ("nemotron", '{"datasets": [{"name": "a"}]}', "lacks `path`"),
        ("nemotron", '{"datasets": [{"name": "a", "path": "b", "weight": "x"}]}', "no number"),
    ],
)
def test_broken(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / "given").write_text(text)
    with pytest.raises(UserError, match=message):
        import_mixture(tmp_path / "given", name, tmp_path / "out.json")


def test_one_domain_is_no_mixture(row_mixture: Path) -> None:
    content = json.loads(row_mixture.read_text())
    content["sources"] = [content["sources"][0] | {"weight": 1.0}]
    row_mixture.write_text(json.dumps(content))
    for to in ("automodel", "fast-llm"):
        with pytest.raises(UserError, match="needs two"):
            export_mixture(row_mixture, to, row_mixture.with_name("x"), paths="{name}")
