"""Special tokens that text spells, such as <|endoftext|> in a user's own words.

Taken for the token, such a name would end a document in its middle, or open somebody else's turn.
`keep` leaves it text wherever the tokenizer can, and counts it; `forbid` makes such a document a
bad line; `encode` makes it the token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from data_tools.readers import Problem
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.data.tokenizer_backend import After, Ids

TREATMENTS = ("keep", "forbid", "encode")
KEPT = "names of special tokens in text stay text"
ENCODED = "names of special tokens in text become these tokens"
NOT_KEPT = "texts become special tokens, which the tokenizer cannot keep as text"


class SpecialText:
    """What becomes of them.

    Args:
        tokenizer: of the run.
        treatment: of `TREATMENTS`.
        notes: where they are counted.
    """

    def __init__(self, tokenizer: Tokenizer, treatment: str, notes: Counter[str]) -> None:
        assert treatment in TREATMENTS
        self._tokenizer, self._treatment, self._notes = tokenizer, treatment, notes

    def refuse(self, texts: Iterable[str]) -> Problem | None:
        """Why a document may not be used, if its texts spell what is forbidden."""
        if self._treatment != "forbid":
            return None
        for text in texts:
            spelled = self._tokenizer.special_names.search(text)
            if spelled:
                return Problem(f"its text spells the special token {spelled.group()}")
        return None

    def note(self, texts: Iterable[str]) -> None:
        """Count what the texts of documents spell."""
        found = sum(len(self._tokenizer.special_names.findall(text)) for text in texts)
        if found:
            self._notes[ENCODED if self._treatment == "encode" else KEPT] += found

    def encode(self, texts: Sequence[str], after: After | None = None) -> list[Ids]:
        """Token ids of texts; special tokens that come of text all the same are counted."""
        if self._treatment == "encode":
            return self._tokenizer.encode_spelled(texts, after)
        found = self._tokenizer.encode_literally(texts, after)
        self.count(found)
        return found

    def count(self, encoded: Iterable[Ids]) -> None:
        """Count special tokens that came of text which should have stayed text."""
        if self._treatment != "encode":
            number = sum(self._tokenizer.count_special(ids) for ids in encoded)
            if number:
                self._notes[NOT_KEPT] += number
