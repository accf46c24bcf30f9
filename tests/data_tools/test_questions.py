from __future__ import annotations

from pathlib import Path

import orjson
import yaml

from data_tools.build_corpora import build_corpora, load_corpora_config
from data_tools.questions import docstrings, doctest_questions, pod_questions

POD = """=head1 NAME

faq - Questions

=head2 How do I print C<$x>?

(contributed)

Use I<print>:

    print $x;

=over 4

=head2 A heading that asks nothing

Text.

=head2 Why?

Because.

=head1 AUTHOR

Somebody
"""

CODE = '''
"""Module.

>>> 1 + 1
2
>>> x = 3
"""
def f():
    """Nothing to see."""
def g():
    """
    >>> broken
   2
    """
'''


def test_headings_that_ask_become_questions() -> None:
    assert pod_questions(POD) == [
        "Question: How do I print $x?\nAnswer: (contributed)\n\nUse print:\n\n    print $x;",
        "Question: Why?\nAnswer: Because.",
    ]
    assert pod_questions("no headings") == []


def test_examples_that_print_become_questions() -> None:
    assert doctest_questions(CODE) == ["Question: 1 + 1\nAnswer: 2\n"]
    assert len(docstrings(CODE)) == 3
    assert doctest_questions("not python (") == []


def test_near_copies_and_junk_stay_out_of_the_average(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(12):
        words = " ".join(f"word{number}x{place}" for place in range(100))
        (texts / f"{number}.txt").write_text(words)
        (texts / f"{number}.num").write_text(f"{number} " * 10 + words[::-1])
    config = tmp_path / "corpora.yaml"
    files = {"kind": "files", "root": "texts"}
    sources = [
        {"name": "real", "patterns": ["*.txt"], **files},
        {"name": "numbers", "patterns": ["*.num"], "junk": True, **files},
        {"name": "again", "kind": "edited", "of": "real", "dropped": 0.3},
    ]
    config.write_text(yaml.safe_dump({"sources": sources, "heldout": 0.2}))
    build_corpora(load_corpora_config(config), tmp_path, tmp_path)

    def read(path: str) -> dict[str, str]:
        lines = (tmp_path / "text" / path).read_bytes().splitlines()
        return {row["id"]: row["text"] for row in map(orjson.loads, lines)}

    real, again = read("sources/real.jsonl"), read("sources/again.jsonl")
    assert {f"edited/{name}" for name in real} == set(again)
    kept = [len(again[f"edited/{name}"].split()) / len(text.split()) for name, text in real.items()]
    assert 0.6 < sum(kept) / len(kept) < 0.8
    for name, text in real.items():
        assert set(again[f"edited/{name}"].split()) < set(text.split())
    assert all(name.startswith("real/") for name in read("judge/average.jsonl"))
