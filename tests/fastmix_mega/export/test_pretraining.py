"""OLMo-core by its own code; Levanter and Fast-LLM by readers written from their sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from fastmix_mega.errors import UserError
from fastmix_mega.export.export import export_mixture
from fastmix_mega.export.pretraining import levanter_block
from fastmix_mega.export.take import import_mixture, read_blends
from fastmix_mega.mixture.file import read_mixture
from tests.fastmix_mega.export.conftest import SHARES
from tests.fastmix_mega.export.consumers import read_with


def test_olmo_composable(row_mixture: Path, tmp_path: Path) -> None:
    path = export_mixture(
        row_mixture, "olmo-core-composable", tmp_path / "x", budget_tokens=10_000
    ).path
    taken = read_with("olmo_composable", path, str(tmp_path / "work"))
    # It samples whole documents of up to 80 tokens.
    assert taken == {name: pytest.approx(10_000 * w, abs=80) for name, w in SHARES.items()}


def sequences_of_levanter(weights: dict[str, float], block: int) -> dict[str, int]:
    """Sequences by source in a block, as Levanter's MixtureDataset (2026-08) counts them: cut to
    whole ones, the rest to the largest."""
    total = sum(weights.values())
    counts = {name: int(weight / total * block) for name, weight in weights.items()}
    counts[max(counts, key=counts.__getitem__)] += block - sum(counts.values())
    return counts


def test_levanter(row_mixture: Path, tmp_path: Path) -> None:
    path = export_mixture(row_mixture, "levanter", tmp_path / "x", paths="caches/{name}").path
    data = yaml.safe_load(path.read_text())["data"]
    assert set(data["train_weights"]) <= set(data["components"])
    counts = sequences_of_levanter(data["train_weights"], data["mixture_block_size"])
    assert {name: count / data["mixture_block_size"] for name, count in counts.items()} == (
        pytest.approx(SHARES, abs=1 / 1024)
    )


@pytest.mark.parametrize(("smallest", "block"), [(0.1, 2048), (0.002, 8192), (1e-4, 32768)])
def test_levanter_block_holds_the_rarest(smallest: float, block: int) -> None:
    assert levanter_block([1 - smallest, smallest]) == block
    assert sequences_of_levanter({"a": 1 - smallest, "b": smallest}, block)["b"] >= 1
    with pytest.raises(UserError, match="never be read"):
        levanter_block([1 - 1e-5, 1e-5])


def test_levanter_schedule(tmp_path: Path) -> None:
    content = {
        "data": {"train_weights": [[0, {"a": 1, "b": 1}], [100, {"a": 1, "b": 3}]]},
        "trainer": {"train_batch_size": 8},
        "train_seq_len": 64,
    }
    (tmp_path / "x").write_text(yaml.safe_dump(content))
    lines = import_mixture(tmp_path / "x", "levanter", tmp_path / "m.json")
    assert not (tmp_path / "m.json").exists()
    second = read_mixture(tmp_path / "m.stage_1.json")
    assert [each.weight for each in second.sources] == [0.25, 0.75]
    assert any("from_tokens: 51200" in line for line in lines)
    import_mixture(tmp_path / "x", "levanter", tmp_path / "m.json", stage="stage_0")
    assert [each.weight for each in read_mixture(tmp_path / "m.json").sources] == [0.5, 0.5]
    with pytest.raises(UserError, match="no stage 'x'; its stages: stage_0, stage_1"):
        import_mixture(tmp_path / "x", "levanter", tmp_path / "m.json", stage="x")


def drawn_by_fast_llm(weights: list[float], samples: int) -> list[int]:
    """As its BlendedDataset (2026-07) and Megatron's: always the source that lags most."""
    shares, counts = np.array(weights) / sum(weights), np.zeros(len(weights), int)
    for index in range(samples):
        counts[np.argmax(shares * (index + 1) - counts)] += 1
    return counts.tolist()


def test_fast_llm(row_mixture: Path, tmp_path: Path) -> None:
    path = export_mixture(row_mixture, "fast-llm", tmp_path / "x", paths="{name}/data.yaml").path
    blend = yaml.safe_load(path.read_text())["data"]["datasets"]["training"]
    assert blend["type"] == "blended"
    assert [each["path"] for each in blend["datasets"]] == [f"{n}/data.yaml" for n in SHARES]
    assert drawn_by_fast_llm(blend["weights"], 1000) == [500, 300, 200]


def test_blends_within_blends(tmp_path: Path) -> None:
    inner = {"type": "blended", "datasets": [{"path": "a"}, {"path": "b"}], "weights": [1, 3]}
    outer = {"type": "blended", "datasets": [inner, {"path": "c"}], "weights": [1, 1]}
    (tmp_path / "x").write_text(yaml.safe_dump(outer))
    (blend,) = read_blends(tmp_path / "x", "fast-llm")
    assert [part.weight for part in blend.parts] == [0.125, 0.375, 0.5]
    specs = [{"source": {"source_paths": ["a.bin"]}, "ratio": 1, "label": "a"}]
    specs += [{"source": {"source_specs": specs + specs}, "ratio": 3}]
    (tmp_path / "x").write_text(yaml.safe_dump({"source_specs": specs}))
    (blend,) = read_blends(tmp_path / "x", "olmo-core-composable")
    assert [part.weight for part in blend.parts] == [0.25, 0.375, 0.375]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("levanter", "data: {}", "no `train_weights`"),
        ("levanter", "train_weights: [3]", "list of"),
        ("fast-llm", "type: file", "lacks `path`"),
        ("fast-llm", "{type: blended, datasets: [], weights: [1]}", "one length"),
        ("olmo-core-composable", "a: b", "source_specs"),
    ],
)
def test_broken(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / "given").write_text(text)
    with pytest.raises(UserError, match=message):
        import_mixture(tmp_path / "given", name, tmp_path / "out.json")
