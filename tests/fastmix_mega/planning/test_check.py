from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fastmix_mega.cli import main as cli
from fastmix_mega.configuration import parse_config
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.indexed_writer import IndexedWriter
from fastmix_mega.planning.check import check, mode_of


def mistakes(settings: dict[str, Any], processes: int = 1, mode: str = "search") -> str:
    return "\n".join(check(parse_config(settings), processes, mode).mistakes)


def test_a_good_configuration_has_none(settings: dict[str, Any]) -> None:
    assert mistakes(settings) == ""
    assert mistakes(settings, processes=2) == ""
    assert mistakes(settings, mode="train") == ""


MINIMAX = {"objective": "minimax"}


def test_every_mistake_is_found_at_once(settings: dict[str, Any], tmp_path: Path) -> None:
    settings["tokenizer"] = str(tmp_path / "none.model")
    settings["sources"][0]["prefix"] = str(tmp_path / "none")
    settings["train"]["global_batch"] = 7
    settings["train"]["steps"] = 6
    found = mistakes(settings)
    assert "cannot read" in found
    assert "sources: alpha" in found
    assert "none.bin is missing" in found
    assert "must be a multiple" in found
    assert "leave no room for an update" in found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"preset": "2T"}}, "there is no '2T'"),
        ({"model": {"layers": 2}}, "without a preset, give"),
        ({"model": {"preset": "tiny", "vocab_size": 128}}, "the tokenizer has 300 tokens"),
        ({"model": {"preset": "tiny", "attention_heads": 3}}, "even multiple"),
        ({"targets": []}, "a search needs at least one"),
        ({"parallel": {"zero": 3}}, "ZeRO stage 1 or 2"),
        ({"run_dir": "/dev/null/run"}, "is a file"),
    ],
)
def test_single_mistakes(settings: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    assert message in mistakes(settings | changes)


def test_batches_must_divide(settings: dict[str, Any]) -> None:
    assert "8 would work" in mistakes(settings | {"train": settings["train"]}, processes=3) or (
        "must be a multiple" in mistakes(settings, processes=3)
    )


def test_long_sequences_need_long_sources(settings: dict[str, Any]) -> None:
    settings["train"]["seq_length"] = 10**6
    assert "are not one sequence of 1000000" in mistakes(settings)


def test_short_target_batch(settings: dict[str, Any]) -> None:
    settings["search"]["target_batch"] = 1
    assert "at least the number of targets" in mistakes(settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_reference": {"near": 3.0, "far": 3.0}}, "is of search.objective: minimax"),
        (MINIMAX | {"target_reference": {"near": 3.0}}, "no loss for the target far"),
        (MINIMAX | {"target_reference": {"near": 3, "far": 3, "x": 3}}, "x is no target"),
    ],
)
def test_objectives(settings: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    settings["search"] |= changes
    assert message in mistakes(settings)


def test_minimax_needs_two_targets(settings: dict[str, Any]) -> None:
    settings["search"] |= MINIMAX
    assert mistakes(settings) == ""
    settings["targets"].pop()
    assert "needs at least two targets" in mistakes(settings)


def test_zero_initial_weight(settings: dict[str, Any]) -> None:
    settings["search"]["initial"] = {"alpha": 0, "beta": 0.5, "gamma": 0.25, "delta": 0.25}
    assert "could never recover" in mistakes(settings)


def test_target_inside_a_source(settings: dict[str, Any], corpora: Path, tmp_path: Path) -> None:
    """One document of 30 is enough, wherever it stands."""
    target, source = IndexedTokens(corpora / "target"), IndexedTokens(corpora / "beta")
    with IndexedWriter(tmp_path / "leaky", source.dtype) as writer:
        writer.add_document(np.array(source.tokens[:500]))
        writer.add_document(np.array(target.tokens[51 * 7 : 51 * 8]))
    settings["sources"][1]["prefix"] = str(tmp_path / "leaky")
    found = mistakes(settings)
    assert "targets: near: 1 of its documents are also in source beta" in found


def test_another_tokenizer(settings: dict[str, Any], tmp_path: Path, corpora: Path) -> None:
    source = IndexedTokens(corpora / "beta")
    with IndexedWriter(tmp_path / "other", source.dtype, {"tokenizer_sha256": "0" * 64}) as writer:
        writer.add_document(np.array(source.tokens[:5000]))
    settings["sources"][1]["prefix"] = str(tmp_path / "other")
    assert "was made with another tokenizer (000000000000" in mistakes(settings)


def test_repetition_is_a_warning(settings: dict[str, Any]) -> None:
    settings["train"]["steps"] = 10_000
    found = check(parse_config(settings), 1)
    assert not found.mistakes
    assert any("times at a uniform share" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ("no_such_layer", "matches none of the parameters (embedding"),
        ("(", "no regular expression"),
    ],
)
def test_scores_of_no_parameter(settings: dict[str, Any], scores: str, message: str) -> None:
    settings["search"]["scores"] = scores
    assert message in mistakes(settings)
    for good in ("head", "hooks:head", "all", "body", r"layers\.1\.mlp"):
        settings["search"]["scores"] = good
        assert mistakes(settings) == ""


def test_a_short_search_is_warned_of(settings: dict[str, Any]) -> None:
    def warnings() -> str:
        return "\n".join(check(parse_config(settings), 1).warnings)

    assert "will be updated only 5 times" in warnings()
    settings["train"]["steps"] = 8
    assert "will be updated only once" in warnings()
    settings["train"]["steps"] = 44
    assert "updated only" not in warnings()


def test_keys_of_a_training_run_in_a_search(settings: dict[str, Any]) -> None:
    settings |= {"mixture": "proportional", "stages": []}
    for mode, count in (("search", 2), ("train", 0)):
        found = "\n".join(check(parse_config(settings), 1, mode).warnings)
        assert found.count("is for fastmix train; a search does not look at it") == count


def test_the_mode_is_found_from_the_configuration(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """configs/large_1b.yaml, once its data is there: no targets, and a mixture."""
    assert mode_of(parse_config(settings)) == "search"
    assert mode_of(parse_config(settings | {"mixture": "uniform"})) == "search"
    path = tmp_path / "large.yaml"
    large = yaml.safe_load(Path("configs/large_1b.yaml").read_text())
    assert mode_of(parse_config(large)) == "train"
    weights = {"web": 0.5, "code": 0.25, "books": 0.25}
    names = {"web": ["alpha", "beta"], "code": "gamma", "books": "delta"}
    folder = Path(settings["tokenizer"]).parent
    for source in large["sources"]:
        name = names[source["name"]]
        source["prefix"] = (
            [str(folder / each) for each in name] if isinstance(name, list) else str(folder / name)
        )
    small = {"model": settings["model"], "mixture": weights, "run_dir": str(tmp_path / "run")}
    large |= small | {"tokenizer": settings["tokenizer"], "train": settings["train"]}
    path.write_text(yaml.safe_dump(large))
    for words in ([], ["--mode", "train"]):
        assert cli.main(["check", str(path), *words]) == 0
        assert "ready: fastmix train, run folder" in capsys.readouterr().out
    assert cli.main(["check", str(path), "--mode", "search"]) == 2
    assert "a search needs at least one" in capsys.readouterr().out


def test_a_prefix_with_its_ending(settings: dict[str, Any], monkeypatch: Any) -> None:
    prefix = settings["sources"][0]["prefix"]
    settings["sources"][0]["prefix"] = f"{prefix}.bin"
    assert f"give the prefix without .bin: {prefix}" in mistakes(settings)
    monkeypatch.chdir(Path(prefix).parent)
    settings["sources"][0]["prefix"] = "elsewhere/alpha"
    assert f"taken from the current folder, {Path(prefix).parent}" in mistakes(settings)


def test_a_mixture_by_a_misspelt_rule(settings: dict[str, Any]) -> None:
    assert "did you mean 'uniform'?" in mistakes(settings | {"mixture": "unifrom"}, mode="train")
