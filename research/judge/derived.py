"""Text that only looks like other text: pure functions from documents to documents.

What they keep and what they break decides which statistics a source can fool.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int64]
_SENTENCE = re.compile(r"(?<=[.!?:;])\s+|\n+")
_PAIR = re.compile(r"Question: (.*?)\nAnswer: (.*?)(?=\nQuestion: |\Z)", re.DOTALL)
PAIRS_ASKED = 12
"""Of a lookup document."""


def ngram_documents(
    documents: Sequence[Tokens], order: int, tokens: int, dice: np.random.Generator
) -> list[Tokens]:
    """Documents drawn from the n-gram law of `documents`: of the same lengths, with their first
    tokens, until there are `tokens` of them.

    Args:
        documents: [length] token ids each.
        order: 2 for pairs, 3 for triples; where a triple's context was never seen, its last token
            alone decides.
        tokens: to make, at least.
        dice: decides everything.
    """
    assert order in (2, 3)
    size = int(max(document.max() for document in documents)) + 1
    tables = [_followers(documents, context, size) for context in range(order - 1, 0, -1)]
    every = np.concatenate(documents)
    made: list[Tokens] = []
    total = 0
    while total < tokens:
        for number in dice.permutation(len(documents)):
            new = documents[number].copy()
            draws = dice.random(len(new))
            for place in range(order - 1, len(new)):
                new[place] = _next_token(new[:place], tables, size, draws[place], every)
            made.append(new)
            total += len(new)
            if total >= tokens:
                break
    return made


def _followers(documents: Sequence[Tokens], context: int, size: int) -> dict[int, Tokens]:
    """Every token that follows a context of so many tokens, as often as it does."""
    found: dict[int, list[int]] = {}
    for document in documents:
        keys = np.zeros(len(document) - context, np.int64)
        for shift in range(context):
            keys = keys * size + document[shift : shift + len(keys)]
        for key, token in zip(keys.tolist(), document[context:].tolist(), strict=True):
            found.setdefault(key, []).append(token)
    return {key: np.array(tokens) for key, tokens in found.items()}


def _next_token(
    before: Tokens, tables: Sequence[dict[int, Tokens]], size: int, draw: float, every: Tokens
) -> int:
    for back_off, table in enumerate(tables):
        context = len(tables) - back_off
        key = 0
        for token in before[-context:].tolist():
            key = key * size + token
        followers = table.get(key)
        if followers is not None:
            return int(followers[int(draw * len(followers))])
    return int(every[int(draw * len(every))])


def shuffled_sentences(documents: Sequence[str], dice: random.Random) -> list[str]:
    """The same sentences and lines, each in a document of a random other."""
    pieces = [[piece for piece in _SENTENCE.split(text) if piece.strip()] for text in documents]
    every = [piece for document in pieces for piece in document]
    dice.shuffle(every)
    rest = iter(every)
    return ["\n".join(next(rest) for _ in document) for document in pieces if document]


def permuted_words(text: str, share: float, dice: random.Random) -> str:
    """A share of the words, chosen at random, in random order among themselves."""
    pieces = re.split(r"(\s+)", text)
    places = [place for place, piece in enumerate(pieces) if piece and not piece.isspace()]
    chosen = [place for place in places if dice.random() < share]
    moved = [pieces[place] for place in chosen]
    dice.shuffle(moved)
    for place, word in zip(chosen, moved, strict=True):
        pieces[place] = word
    return "".join(pieces)


def repeated_documents(
    documents: Sequence[str], share: float, times: int, dice: random.Random
) -> list[str]:
    """A share of the documents, chosen at random, each so many times, in random order."""
    chosen = dice.sample(list(documents), max(1, round(share * len(documents))))
    made = times * chosen
    dice.shuffle(made)
    return made


def question_pairs(documents: Sequence[str], swapped: bool, dice: random.Random) -> list[str]:
    """Documents of questions and answers; swapped, each answer is one to another question."""
    pairs = [
        pair
        for text in documents
        for pair in re.findall(
            r"Question: (.*?)\nAnswer: (.*?)(?=\nQuestion: |\Z)", text, re.DOTALL
        )
    ]
    answers = [answer for _, answer in pairs]
    if swapped:
        turn = dice.randrange(1, len(answers))
        answers = answers[turn:] + answers[:turn]
    joined = [
        f"Question: {question}\nAnswer: {answer.strip()}\n"
        for (question, _), answer in zip(pairs, answers, strict=True)
    ]
    size = 4
    return ["\n".join(joined[first : first + size]) for first in range(0, len(joined), size)]


def lookup_documents(
    documents: Sequence[str], permuted: bool, count: int, dice: random.Random
) -> list[str]:
    """Lists of keys and values that are asked for later; permuted, the answers are of other keys.

    Keys and values are words of the documents.
    """
    words = sorted({word for text in documents for word in re.findall(r"[a-z]{4,9}", text)})
    made = []
    for _ in range(count):
        chosen = dice.sample(words, 2 * PAIRS_ASKED)
        keys, values = chosen[:PAIRS_ASKED], chosen[PAIRS_ASKED:]
        told = dict(zip(keys, values, strict=True))
        if permuted:
            told = dict(zip(keys, values[1:] + values[:1], strict=True))
        listed = [f"{key} = {value}" for key, value in zip(keys, values, strict=True)]
        dice.shuffle(keys)
        asked = [f"{key} ? {told[key]}" for key in keys]
        made.append("\n".join([*listed, *asked]) + "\n")
    return made
