from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from research.judge import derived


def documents(seed: int = 1, count: int = 5) -> list[NDArray[np.int64]]:
    dice = np.random.default_rng(seed)
    return [dice.integers(0, 20, int(dice.integers(30, 60))) for _ in range(count)]


def ngrams(texts: Sequence[NDArray[np.int64]], order: int) -> list[tuple[int, ...]]:
    return [
        tuple(text[place : place + order])
        for text in texts
        for place in range(len(text) - order + 1)
    ]


@pytest.mark.parametrize("order", [2, 3])
def test_drawn_documents_hold_no_ngram_that_the_real_ones_do_not(order: int) -> None:
    real = documents()
    made = derived.ngram_documents(real, order, 2000, np.random.default_rng(2))
    known = set(ngrams(real, order))
    ends = {tuple(text[1 - order :]) for text in real}
    found = set(ngrams(made, order))
    strange = [each for each in found if each not in known and each[:-1] not in ends]
    assert not strange
    assert sum(map(len, made)) >= 2000
    assert {len(text) for text in made} <= {len(text) for text in real}


def test_drawn_documents_break_longer_contexts() -> None:
    real = [np.tile(np.array([1, 2, 3, 1, 2, 4]), 20)]
    made = derived.ngram_documents(real, 2, 3000, np.random.default_rng(3))
    triples = Counter(tuple(text[place : place + 4]) for text in made for place in range(100))
    # In the real text 3 and 4 take turns; drawn from pairs, 3 follows 3's pair as often as not.
    after_three = triples[3, 1, 2, 3], triples[3, 1, 2, 4]
    assert min(after_three) > 0.3 * max(after_three)


def test_permuted_words_keep_the_words() -> None:
    text = "one two three\nfour five  six seven eight nine ten " * 20
    made = derived.permuted_words(text, 0.5, random.Random(1))
    assert Counter(made.split()) == Counter(text.split())
    assert made.split() != text.split()
    assert derived.permuted_words(text, 0.0, random.Random(1)).split() == text.split()


def test_swapped_answers_are_answers_to_other_questions() -> None:
    texts = [
        "\n".join(f"Question: q{number}\nAnswer: a{number}\n" for number in range(first, first + 5))
        for first in (0, 5, 10, 15)
    ]
    pairs = re.compile(r"Question: q(\d+)\nAnswer: a(\d+)")
    right = pairs.findall("\n".join(derived.question_pairs(texts, False, random.Random(1))))
    swapped = pairs.findall("\n".join(derived.question_pairs(texts, True, random.Random(1))))
    assert len(right) == len(swapped) == 20
    assert all(question == answer for question, answer in right)
    assert sorted(answer for _, answer in swapped) == sorted(answer for _, answer in right)
    assert sum(question == answer for question, answer in swapped) == 0


@pytest.mark.parametrize("permuted", [False, True])
def test_lookups_are_answered_rightly_or_never(permuted: bool) -> None:
    words = [" ".join(f"word{letter}{other}" for letter in "abcdef" for other in "ghijkl")]
    for text in derived.lookup_documents(words, permuted, 10, random.Random(1)):
        told = dict(re.findall(r"^(\w+) = (\w+)$", text, re.MULTILINE))
        asked = re.findall(r"^(\w+) \? (\w+)$", text, re.MULTILINE)
        assert len(asked) == derived.PAIRS_ASKED
        assert all((told[key] == value) is not permuted for key, value in asked)


def test_repeated_documents_are_few_and_each_comes_so_many_times() -> None:
    texts = [f"document {number}" for number in range(50)]
    made = derived.repeated_documents(texts, 0.1, 7, random.Random(1))
    assert len(set(made)) == 5
    assert all(made.count(text) == 7 for text in set(made))
