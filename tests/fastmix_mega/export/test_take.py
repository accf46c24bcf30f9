"""Schedules with several stages, what a file says beside its mixture, and sizes by the user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastmix_mega.cli import main as cli
from fastmix_mega.errors import UserError
from fastmix_mega.export.take import import_mixture
from fastmix_mega.export.units import Size, decimal, read_sizes
from fastmix_mega.mixture.file import read_mixture


def nanotron(*stages: tuple[str, int, list[float]]) -> dict[str, Any]:
    """A configuration as nanotron's examples have it."""
    return {
        "tokens": {
            "sequence_length": 64,
            "micro_batch_size": 2,
            "batch_accumulation_per_replica": 4,
        },
        "parallelism": {"dp": 8},
        "data_stages": [
            {
                "name": name,
                "start_training_step": first,
                "data": {
                    "dataset": {"dataset_folder": ["d/web", "d/code"], "dataset_weights": weights}
                },
            }
            for name, first, weights in stages
        ],
    }


def test_nanotron_with_several_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = nanotron(("Stable Training", 1, [0.9, 0.1]), ("decay", 101, [0.5, 0.5]))
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(given))
    words = ["import", str(tmp_path / "x.yaml"), "--from", "nanotron"]
    words += ["--output", str(tmp_path / "m.json")]
    assert cli.main(words) == 0
    first = read_mixture(tmp_path / "m.Stable_Training.json")
    assert {each.name: each.weight for each in first.sources} == {"web": 0.9, "code": 0.1}
    # What is printed is what `fastmix train` takes: 100 steps of 64 x 2 x 4 x 8 tokens.
    shown = capsys.readouterr().out.split("for fastmix train:\n")[1]
    (stage,) = yaml.safe_load(shown)["stages"]
    assert stage == {
        "name": "decay",
        "from_tokens": 100 * 64 * 2 * 4 * 8,
        "mixture": str(tmp_path / "m.decay.json"),
    }
    assert cli.main([*words, "--stage", "decay"]) == 0
    assert [each.weight for each in read_mixture(tmp_path / "m.json").sources] == [0.5, 0.5]


def test_stages_without_the_tokens_of_a_step(tmp_path: Path) -> None:
    given = nanotron(("a", 1, [1, 1]), ("b", 5, [1, 3]))
    del given["tokens"]
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(given))
    lines = import_mixture(tmp_path / "x.yaml", "nanotron", tmp_path / "m.json")
    assert any("set stages[].from_tokens by hand" in line for line in lines)


def test_stages_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(
        yaml.safe_dump(nanotron(("a b", 1, [1, 1]), ("a_b", 5, [1, 3])))
    )
    with pytest.raises(UserError, match="two stages would both be"):
        import_mixture(tmp_path / "x.yaml", "nanotron", tmp_path / "m.json")


def test_other_splits_are_told(tmp_path: Path) -> None:
    content = {"train": ["0.5", "a", "0.5", "b"], "valid": ["1.0", "held"], "test": None}
    (tmp_path / "x.json").write_text(json.dumps(content))
    lines = import_mixture(tmp_path / "x.json", "megatron-split-json", tmp_path / "m.json")
    assert "not taken, since it is no part of the mixture: valid (['1.0', 'held'])" in lines


def test_the_file_to_import_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("0.5 a 0.5 b")
    with pytest.raises(UserError, match="which would be overwritten"):
        import_mixture(tmp_path / "x", "megatron", tmp_path / "x")


def test_sizes(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("a: 1.5B\nb: {tokens: 20k, rows: 100}\n")
    assert read_sizes(tmp_path / "s.yaml") == {"a": Size(1_500_000_000), "b": Size(20_000, 100)}
    for text, message in (
        ("a: x", "no number"),
        ("a: -3", "no number"),
        ("a: 9223372036854775808", "no number"),
        ("a: {rows: 3}", "give tokens"),
        ("a: null", "give tokens"),
        ("- a", "must hold"),
        ("{", "not valid YAML"),
    ):
        (tmp_path / "s.yaml").write_text(text)
        with pytest.raises(UserError, match=message):
            read_sizes(tmp_path / "s.yaml")


@pytest.mark.parametrize("value", [1e-5, 0.1 + 0.2, 1.0, 3.0, 123.456, 1e-15])
def test_decimals_have_a_point_and_no_exponent(value: float) -> None:
    """open-instruct takes an amount without a point for rows, and cannot read 1e-05."""
    text = decimal(value)
    assert "." in text
    assert "e" not in text
    assert float(text) == pytest.approx(value, rel=1e-9, abs=1e-13)
    assert float(text) > 0
