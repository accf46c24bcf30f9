"""Rows of different lengths: what a trainer reads must have the mixture's shares of tokens."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastmix_mega.errors import UserError
from fastmix_mega.export.export import export_mixture
from fastmix_mega.export.take import import_mixture
from fastmix_mega.export.units import Size
from fastmix_mega.mixture.file import read_mixture
from tests.fastmix_mega.export.conftest import ROWS, SHARES, token_shares
from tests.fastmix_mega.export.consumers import read_with

BUDGET = 20_000
SIZES = {name: Size(rows * length, rows) for name, (rows, length) in ROWS.items()}


def export(mixture: Path, to: str, **options: Any) -> Path:
    options.setdefault("paths", "{name}")
    return export_mixture(mixture, to, mixture.with_name(to), **options).path


def files(folder: Path) -> dict[str, str]:
    return {name: str(folder / f"{name}.jsonl") for name in ROWS}


def test_trl_keeps_rows_in_the_shares(row_mixture: Path, row_corpora: Path) -> None:
    kept = read_with("trl", export(row_mixture, "trl"), files(row_corpora))
    # `rare` is the scarcest: 0.2 of the tokens in 1,500.
    assert kept["rare"] == 60
    assert token_shares(kept) == pytest.approx(SHARES, abs=0.005)


def test_llama_factory_draws_rows_in_the_shares(row_mixture: Path) -> None:
    rows = {name: 50 * count for name, (count, _) in ROWS.items()}
    drawn = read_with("llama_factory", export(row_mixture, "llama-factory"), rows)
    assert token_shares(drawn) == pytest.approx(SHARES, abs=0.02)


def test_axolotl_reads_the_slice_and_drops_the_weight(row_mixture: Path, row_corpora: Path) -> None:
    """0.19.0 has no `weight`: the reason for two formats."""
    read = read_with("axolotl", export(row_mixture, "axolotl"), files(row_corpora))
    assert token_shares(read["kept"]) == pytest.approx(SHARES, abs=0.005)
    assert read["dropped"] == []
    ignored = read_with("axolotl", export(row_mixture, "axolotl-weight"), files(row_corpora))
    assert ignored == {"kept": {n: count for n, (count, _) in ROWS.items()}, "dropped": ["weight"]}


def test_axolotl_weight(row_mixture: Path) -> None:
    """As its pull request 3690 reads it: int(weight * rows) of the shuffled rows, at most all."""
    given = yaml.safe_load(export(row_mixture, "axolotl-weight").read_text())["datasets"]
    assert all(0 < each["weight"] <= 1 for each in given)
    kept = {each["path"]: int(each["weight"] * ROWS[each["path"]][0]) for each in given}
    assert token_shares(kept) == pytest.approx(SHARES, abs=0.005)


def test_ms_swift(row_mixture: Path) -> None:
    """As its loader reads it: `dataset`, `interleave_prob`, `stopping_strategy` go to `datasets`
    (swift/dataset/loader.py of 4.6.0)."""
    import datasets

    given = yaml.safe_load(export(row_mixture, "ms-swift").read_text())
    own = [datasets.Dataset.from_dict({"n": [n] * 50 * ROWS[n][0]}) for n in given["dataset"]]
    mixed = datasets.interleave_datasets(
        own, given["interleave_prob"], seed=1, stopping_strategy=given["stopping_strategy"]
    )["n"][:]
    drawn = {name: mixed.count(name) for name in ROWS}
    assert token_shares(drawn) == pytest.approx(SHARES, abs=0.02)


def read_open_instruct(words: list[str]) -> dict[str, int]:
    """Rows by data set, as load_dataset_configs of open-instruct (2026-08) makes them: a point
    makes an amount a share of the rows, which may be above 1."""
    found = {}
    for name, amount in zip(words[::2], words[1::2], strict=True):
        found[name] = int(float(amount) * ROWS[name][0]) if "." in amount else int(amount)
    return found


def read_bridge(weights: list[float], names: list[str]) -> dict[str, int]:
    """Rows by source, as blend_sft_rows of Megatron-Bridge (2026-08) draws them: whole passes, and
    the rest without replacement, rounded up."""
    rows = {}
    for name, weight in zip(names, weights, strict=True):
        own, passes = range(ROWS[name][0]), int(weight)
        rest = -int(-len(own) * (weight - passes) // 1)
        rows[name] = passes * len(own) + len(random.Random(1).sample(own, rest))
    return rows


@pytest.mark.parametrize("budget", [None, BUDGET])
def test_epochs(row_mixture: Path, budget: int | None) -> None:
    words = yaml.safe_load(export(row_mixture, "open-instruct", budget_tokens=budget).read_text())
    rows = read_open_instruct(words["dataset_mixer_list"])
    assert token_shares(rows) == pytest.approx(SHARES, abs=0.01)
    tokens = sum(count * ROWS[name][1] for name, count in rows.items())
    # Without a budget, no row twice: 1,500 tokens of `rare` are a fifth.
    assert tokens == pytest.approx(budget or 7500, rel=0.01)
    content = json.loads(
        export(row_mixture, "megatron-bridge-sft", budget_tokens=budget).read_text()
    )
    names = [source["path_or_dataset"] for source in content["source"]]
    assert token_shares(read_bridge(content["source_weights"], names)) == pytest.approx(
        SHARES, abs=0.01
    )


@pytest.mark.parametrize(
    ("to", "exact"),
    [
        *((to, 1e-9) for to in ("llama-factory", "ms-swift", "trl", "axolotl-weight")),
        *((to, 1e-9) for to in ("open-instruct", "megatron-bridge-sft", "energon")),
        ("energon-epochized", 1e-9),
        ("axolotl", 5e-3),
    ],
)
def test_import_converts_back(row_mixture: Path, to: str, exact: float) -> None:
    back = row_mixture.with_name("back.json")
    lines = import_mixture(export(row_mixture, to), to, back, sizes=SIZES)
    assert any("made shares of tokens" in line for line in lines)
    found = {source.name: source.weight for source in read_mixture(back).sources}
    assert found == pytest.approx(SHARES, abs=exact)


def test_what_it_costs_is_said(row_mixture: Path) -> None:
    done = export_mixture(
        row_mixture, "trl", row_mixture.with_name("x"), budget_tokens=BUDGET, paths="{name}"
    )
    # 13,500 tokens; 7,500 can be kept.
    assert any("6,000 of 13,500 tokens are left out (short 6%, long 72%)" in x for x in done.lines)
    assert any("read 2.67 times in 20,000 tokens" in line for line in done.lines)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("llama-factory", "dataset: a,b\n", "reads every row once"),
        (
            "llama-factory",
            "{dataset: a, mix_strategy: interleave_over, interleave_probs: '1,2'}",
            "1",
        ),
        ("open-instruct", "dataset_mixer_list: [a, '1', b, '1.0']", "1 is one row and 1.0"),
        ("axolotl", "datasets: [{path: a, split: 'train[5:]'}]", "from the first row"),
        ("axolotl", "datasets: [{path: a, split: 'train[:5]'}, {path: b}]", "give all of one kind"),
        ("trl", "datasets: [{path: a}]", "lacks `fraction`"),
        ("trl", "datasets: [{path: a, fraction: 1}]", "the tokens and rows of a must be known"),
        ("megatron-bridge-sft", '{"source": [{}]}', "path_or_dataset"),
        ("ms-swift", "dataset: [a]", "lists of one length"),
    ],
)
def test_broken(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / "given").write_text(text)
    with pytest.raises(UserError, match=message):
        import_mixture(tmp_path / "given", name, tmp_path / "out.json")


def test_rows_that_nobody_counted(row_mixture: Path) -> None:
    content = json.loads(row_mixture.read_text())
    content["sources"][0]["prefix"] = "away"
    row_mixture.write_text(json.dumps(content))
    with pytest.raises(UserError, match="the rows of short must be known"):
        export(row_mixture, "trl")
