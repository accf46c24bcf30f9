"""What a chat template makes of a conversation: its text in pieces, of which some count."""

from __future__ import annotations

from dataclasses import dataclass

from fastmix_mega.data.tokenizer_backend import Spans


@dataclass(frozen=True)
class Piece:
    """Part of a conversation's text."""

    text: str
    counts: bool = False
    """Whether its tokens count in the loss."""
    ends: bool = False
    """Whether the end-of-document token follows, which counts as the text does."""
    literal: Spans = ()
    """Where the text spells special tokens that shall stay text."""
