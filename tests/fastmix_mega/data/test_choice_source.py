"""Multiple-choice sets: whole questions in a shuffled order, the right choice first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_tools.merge import merge
from data_tools.split import split
from fastmix_mega.configuration import parse_config
from fastmix_mega.data.choice_source import ChoiceSource
from fastmix_mega.data.indexed_format import token_dtype
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.indexed_writer import IndexedWriter
from fastmix_mega.data.source import open_source
from fastmix_mega.errors import UserError
from fastmix_mega.planning.check import check


def write(prefix: Path, choices: int, lengths: list[int]) -> Path:
    """Documents whose every token is the document's number; the last token counts."""
    with IndexedWriter(prefix, token_dtype(300), {"choices": choices}, masked=True) as writer:
        for number, length in enumerate(lengths):
            writer.add_document(np.full(length, number), np.arange(length) == length - 1)
    return prefix


def test_choices_stay_together(tmp_path: Path) -> None:
    prefix = write(tmp_path / "quiz", 3, [4] * 30)
    source = open_source("quiz", [str(prefix)], 8, seed=5)
    assert isinstance(source, ChoiceSource)
    assert source.choices == 3
    assert source.num_samples == 30
    rows = source.read(np.arange(60))
    numbers = rows.tokens[:, 0].reshape(20, 3)
    assert (numbers % 3 == [0, 1, 2]).all()
    assert (numbers // 3 == numbers[:, :1] // 3).all()
    for epoch in (numbers[:10], numbers[10:]):
        assert sorted(epoch[:, 0] // 3) == list(range(10))
    assert numbers[:10, 0].tolist() != sorted(numbers[:10, 0])
    assert rows.loss_mask is not None
    assert rows.loss_mask.sum(axis=1).tolist() == [1] * 60
    alone = source.read(np.array([7]))
    assert (alone.tokens == rows.tokens[7]).all()


def test_a_question_with_a_long_choice_is_left_out_whole(tmp_path: Path) -> None:
    prefix = write(tmp_path / "quiz", 2, [4, 4, 4, 30, 9, 4])
    source = open_source("quiz", [str(prefix)], 8, seed=5)
    assert isinstance(source, ChoiceSource)
    assert source.left_out == 1
    assert source.num_samples == 4
    assert set(source.read(np.arange(4)).tokens[:, 0].tolist()) == {0, 1, 4, 5}


def test_what_does_not_fit_together(tmp_path: Path) -> None:
    two, three = write(tmp_path / "a", 2, [4] * 4), write(tmp_path / "b", 3, [4] * 6)
    with pytest.raises(UserError, match="make them two targets"):
        ChoiceSource("quiz", [IndexedTokens(two), IndexedTokens(three)], 8, 5)
    odd = write(tmp_path / "c", 2, [4] * 5)
    with pytest.raises(UserError, match="no whole questions of 2 choices"):
        open_source("quiz", [str(odd)], 8, 5)


def test_questions_are_not_merged_or_split(tmp_path: Path) -> None:
    prefix = str(write(tmp_path / "quiz", 2, [4] * 4))
    with pytest.raises(UserError, match="cannot be merged or split"):
        merge([prefix, str(write(tmp_path / "more", 2, [4] * 4))], tmp_path / "merged")
    with pytest.raises(UserError, match="cannot be merged or split"):
        split(prefix, tmp_path / "parts", 0.1, 0.1, 0)


def test_questions_are_never_trained_on(settings: dict[str, Any], corpora: Path) -> None:
    settings["sources"][0]["prefix"] = str(corpora / "quiz")
    found = check(parse_config(settings), 1)
    assert any("never a source" in message for message in found.mistakes)
