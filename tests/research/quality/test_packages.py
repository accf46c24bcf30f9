from __future__ import annotations

from pathlib import Path

from research.quality.packages import numbered_questions, pieces, replace_by

FAQ = """
Chapter\u00a01.\u00a0Overview

1.1.\u00a0What is
it?

    A thing.

    And more.

1.2. A heading that asks nothing

    Text.

1.2.1. Really?!

    Yes.

---------------------------------------------------------------------

Chapter 2. The end?
"""


def test_only_sections_that_ask_become_questions() -> None:
    assert numbered_questions(FAQ) == [
        "Question: What is it?\nAnswer: A thing.\n\nAnd more.\n",
        "Question: Really?!\nAnswer: Yes.\n",
    ]


def test_pieces_lose_nothing_and_start_at_a_boundary(tmp_path: Path) -> None:
    sayings = "\n%\n".join(f"saying {number}" for number in range(50)) + "\n"
    cut = pieces(sayings, r"\n(?=%\n)", 100)
    assert "\n".join(cut) == sayings
    assert len(cut) > 3
    assert all(piece.startswith("%\n") for piece in cut[1:])
    dictionary = "word\n  meaning\n\n  more\n\nother\n  meaning\n"
    assert pieces(dictionary, least=1) == ["word\n  meaning\n\n  more", "other\n  meaning\n"]
    path = tmp_path / "words.dict"
    path.write_text(dictionary)
    replace_by(path, ["one", "two"])
    assert [(each.name, each.read_text()) for each in sorted(tmp_path.iterdir())] == [
        ("words.0000.txt", "one"),
        ("words.0001.txt", "two"),
    ]
