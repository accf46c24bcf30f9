"""Text that a tokenizer makes no tokens of: it would be lost without a word."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.data.tokenizer_backend import Ids

_INVISIBLE = ("Mn", "Cf", "Cc", "Zs", "Zl", "Zp")
"""Categories of Unicode that normalizers rightly take away: marks, controls and spaces."""


def lost_text(tokenizer: Tokenizer, texts: Sequence[str], encoded: Sequence[Ids]) -> dict[int, str]:
    """Why texts may not become documents, by their place in the batch.

    Args:
        tokenizer: what encoded them.
        texts: none is empty.
        encoded: the token ids of each text.
    """
    found = {
        place: "the tokenizer makes no token of the text"
        for place, ids in enumerate(encoded)
        # Of spaces alone some tokenizers rightly make nothing.
        if not len(ids) and any(map(_is_visible, texts[place]))
    }
    return found | (_unknown(tokenizer, texts) if tokenizer.may_drop else {})


def _is_visible(character: str) -> bool:
    return unicodedata.category(character) not in _INVISIBLE


def _unknown(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[int, str]:
    """Texts with characters that no token covers."""
    found = {}
    for place, text in enumerate(texts):
        whole = [(0, len(text))]
        encoded = tokenizer.encode_marked([text], [whole])[0]
        if encoded is None:
            # Not even names of special tokens can stay text here.
            encoded = tokenizer.encode_marked([text], [()])[0]
        assert encoded is not None
        places = encoded[1]
        covered = bytearray(len(text))
        for start, end in places:
            covered[start:end] = b"\x01" * (end - start)
        seen = zip(text, covered, strict=True)
        if any(not known and _is_visible(character) for character, known in seen):
            # Where one is left out the library's places move: they do not say which it was.
            characters = [each for each in dict.fromkeys(text) if _is_visible(each)]
            alone = tokenizer.encode(characters)
            lost = [each for each, ids in zip(characters, alone, strict=True) if not len(ids)]
            names = ", ".join(map(repr, lost[:5])) or "some of its characters"
            found[place] = f"the tokenizer has no token for {names} and would leave it out"
    return found
