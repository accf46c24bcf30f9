"""A target or evaluation set of multiple-choice questions: one sequence per choice, padded."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fastmix_mega.data.conversations import ConversationSource
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.order import SampleOrder
from fastmix_mega.data.rows import Rows
from fastmix_mega.errors import UserError


def choices_of(file: IndexedTokens) -> int:
    """Sequences per question, as the manifest says; 1 for what holds no questions."""
    fields = file.manifest.model_extra if file.manifest is not None else None
    return int((fields or {}).get("choices", 1))


def require_no_questions(file: IndexedTokens) -> None:
    """Raises: UserError for multiple choice, whose documents make sense in a row only."""
    if choices_of(file) > 1:
        raise UserError(
            f"{file.prefix} holds multiple-choice questions, which cannot be merged or split; do "
            "it with the questions themselves and preprocess them again"
        )


class ChoiceSource(ConversationSource):
    """Questions in a shuffled order, each with its choices in a row, the right one first.

    Index n is choice n mod C of question n div C. A question with a choice that is longer than a
    sequence is left out whole: a cut choice would be another one.

    Args:
        name: of the set; part of the shuffle's key.
        files: with loss masks; C documents in turn are one question.
        seq_length: s.
        seed: of the run.

    Raises:
        UserError: if the files' numbers of choices differ or do not divide their documents.
    """

    def __init__(
        self, name: str, files: Sequence[IndexedTokens], seq_length: int, seed: int
    ) -> None:
        super().__init__(name, files, seq_length, seed, packed=False)
        self.choices = choices_of(files[0])
        for file in files:
            if choices_of(file) != self.choices:
                raise UserError(
                    f"{file.prefix} has {choices_of(file)} choices a question and "
                    f"{files[0].prefix} has {self.choices}; make them two targets"
                )
            if file.num_documents % self.choices:
                raise UserError(
                    f"{file.prefix}: {file.num_documents} documents are no whole questions of "
                    f"{self.choices} choices; preprocess it again"
                )
        fits = (self._lengths.reshape(-1, self.choices) <= seq_length + 1).all(axis=1)
        self._questions = np.flatnonzero(fits)
        self.left_out = int((~fits).sum())
        """Questions with a choice that is longer than a sequence."""
        self._kept = np.arange(len(self._lengths))
        self._question_order = SampleOrder(name, seed, len(self._questions), 0, held_out=False)
        self.num_samples = len(self._questions) * self.choices

    def _places(self, indices: NDArray[np.integer]) -> NDArray[np.int64]:
        questions, choices = np.divmod(np.asarray(indices, np.int64), self.choices)
        found = self._questions[self._question_order.places(questions)]
        return found * self.choices + choices

    def subset(self, share: float) -> Self:
        """The same source, of which only a share of the questions is ever read."""
        part = copy.copy(self)
        part._question_order = self._question_order.subset(share)
        part.num_samples = part._question_order.num_samples * self.choices
        return part

    def read(self, indices: NDArray[np.integer]) -> Rows:
        return self._read_rows(self._places(indices))
