"""Text that stands on two sides, files that stand twice, and a run folder among the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmix_mega.configuration import parse_config
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.indexed_writer import IndexedWriter
from fastmix_mega.data.overlap import shared_by_pairs
from fastmix_mega.mixture.file import MixtureFile, MixtureSource
from fastmix_mega.planning.check import Findings, check


def found(settings: dict[str, Any], mode: str = "search") -> Findings:
    return check(parse_config(settings), 1, mode)


def mistakes(settings: dict[str, Any]) -> str:
    return "\n".join(found(settings).mistakes)


def warnings(settings: dict[str, Any], mode: str = "search") -> str:
    return "\n".join(found(settings, mode).warnings)


def test_pairs_are_counted_as_sets_are() -> None:
    random = np.random.default_rng(0)
    sets = [random.integers(0, 60, size).astype(np.uint64) for size in (0, 10, 40, 80, 200)]
    wanted = [[len(set(a.tolist()) & set(b.tolist())) for b in sets] for a in sets]
    assert shared_by_pairs(sets).tolist() == wanted
    assert shared_by_pairs([]).shape == (0, 0)


def test_a_source_under_two_names(settings: dict[str, Any]) -> None:
    assert not found(settings).warnings or "share" not in warnings(settings)
    prefix = settings["sources"][0]["prefix"]
    settings["sources"][1]["prefix"] = f"{Path(prefix).parent}/../{Path(prefix).parent.name}/alpha"
    assert "sources: alpha and beta have the same file" in mistakes(settings)


def test_sources_that_share_text(settings: dict[str, Any], corpora: Path, tmp_path: Path) -> None:
    first, second = IndexedTokens(corpora / "alpha"), IndexedTokens(corpora / "gamma")
    with IndexedWriter(tmp_path / "mixed", first.dtype) as writer:
        for number in range(20):
            source = first if number < 5 else second
            writer.add_document(np.array(source.tokens[51 * number : 51 * (number + 1)]))
    settings["sources"][1]["prefix"] = str(tmp_path / "mixed")
    for mode in ("search", "train"):
        shown = warnings(settings, mode)
        assert "sources beta and gamma share 15 of the 20 documents" in shown
        assert "sources alpha and beta share 5 of the 20 documents" in shown
        assert "(25.0%)" in shown
        assert "delta" not in "".join(line for line in shown.split("\n") if "share" in line)


def test_held_out_text_that_steers_the_search(settings: dict[str, Any], corpora: Path) -> None:
    settings["evaluation"] = {"sets": [{"name": "judge", "prefix": str(corpora / "target")}]}
    shown = warnings(settings)
    assert "evaluation.sets: judge: 30 of its documents are also in target near" in shown
    assert "also in target near" not in warnings(settings, "train")
    settings["evaluation"]["sets"][0]["prefix"] = str(corpora / "alpha")
    assert "judge: 100 of its documents are also in source alpha" in mistakes(settings)


@pytest.mark.parametrize("inside", [False, True])
def test_a_run_folder_among_the_data(
    settings: dict[str, Any], corpora: Path, inside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings["run_dir"] = str(corpora / "runs" / "a" if inside else corpora)
    if inside:
        assert f"runs/a lies inside {corpora}" in warnings(settings)
        # Data in the current folder is no reason to run elsewhere.
        monkeypatch.chdir(corpora)
        assert "lies inside" not in warnings(settings)
    else:
        assert "is the folder of token files" in mistakes(settings)


def test_a_mixture_of_another_tokenizer(settings: dict[str, Any], tmp_path: Path) -> None:
    names = [source["name"] for source in settings["sources"]]
    path = tmp_path / "mixture.json"

    def warnings(tokenizer: dict[str, str]) -> list[str]:
        file = MixtureFile(
            sources=[MixtureSource(name=name, weight=0.25) for name in names], tokenizer=tokenizer
        )
        file.write(path)
        config = parse_config(settings | {"mixture": str(path)})
        return [text for text in check(config, 1, "train").warnings if "another tokenizer" in text]

    assert warnings({}) == []
    (found,) = warnings({"sha256": "0" * 64})
    assert found.startswith(f"mixture: {path} was found with another tokenizer (000000000000...")
