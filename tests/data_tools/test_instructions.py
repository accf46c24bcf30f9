"""Questions and answers made of text: what is asked, what is held apart, what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_tools.build_instructions import build_instructions, load_instructions_config
from data_tools.instructions import Arithmetic, read_pairs
from fastmix_mega.errors import UserError

WRONG = {"name": "x", "kind": "wrong_answers"}
CODE = '''
def area(width, height=2):
    """The area of a rectangle
    with straight sides.

    More words.
    """
    if width < 0:
        raise ValueError("too narrow")
    product = width * height
    return product


def _hidden(x):
    """Nobody asks for a function that is private."""
'''


def config_in(directory: Path, **content: Any) -> Path:
    package = directory / "package"
    package.mkdir(parents=True, exist_ok=True)
    (package / "shapes.py").write_text(CODE)
    (package / "broken.py").write_text("def :")
    path = directory / "instructions.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def built(directory: Path, **content: Any) -> dict[str, list[dict[str, str]]]:
    path = config_in(directory, **content)
    config = load_instructions_config(path)
    files = build_instructions(config, directory / "out", path.parent)
    return {
        f"{file.parent.name}/{file.stem}": [json.loads(line) for line in file.open()]
        for file in files
    }


def test_questions_on_functions(tmp_path: Path) -> None:
    sources = [
        {"name": kind, "kind": f"{kind}_questions", "root": "package"}
        for kind in ("docstring", "signature", "completion")
    ]
    found = built(tmp_path, sources=sources)
    (docstring,) = found["sources/docstring"]
    assert docstring["question"] == "What does the function area do?"
    assert docstring["answer"] == "The area of a rectangle with straight sides."
    (signature,) = found["sources/signature"]
    assert signature["answer"] == "area(width, height=2)"
    (completion,) = found["sources/completion"]
    body = CODE.strip().split("\n")
    assert completion["question"] == "Complete this code:\n" + "\n".join(body[:4])
    assert completion["answer"] == "\n".join(body[4:8])


def test_sums_are_right() -> None:
    for pair in read_pairs(Arithmetic(name="sums", kind="arithmetic", max_pairs=300), Path()):
        asked = pair.question.removeprefix("What is ").removesuffix("?")
        assert eval(asked) == int(pair.answer)


def test_wrong_answers_are_of_another_kind(tmp_path: Path) -> None:
    sources = [
        {"name": "functions", "kind": "docstring_questions", "root": "package"},
        {"name": "sums", "kind": "arithmetic", "max_pairs": 50},
        {"name": "wrong", "kind": "wrong_answers", "questions": ["functions"],
         "answers": ["sums"], "max_pairs": 40},
    ]  # fmt: skip
    found = built(tmp_path, sources=sources)
    answers = {pair["answer"] for pair in found["sources/sums"]}
    assert len(found["sources/wrong"]) == 40
    for pair in found["sources/wrong"]:
        assert pair["question"].startswith("What does")
        assert pair["answer"] in answers


def test_a_targets_questions_are_in_no_source(tmp_path: Path) -> None:
    entry = {"kind": "arithmetic", "largest": 9}
    found = built(
        tmp_path,
        sources=[entry | {"name": "a", "max_pairs": 250}],
        targets=[entry | {"name": "b", "max_pairs": 60}],
    )
    asked = [{pair["question"] for pair in pairs} for pairs in found.values()]
    assert len(asked) == 3
    assert sum(map(len, asked)) == len(set.union(*asked))
    assert len(found["targets/b"]) == len(found["judge/b"]) == 30
    assert len(found["sources/a"]) > 150
    again = built(
        tmp_path / "again",
        sources=[entry | {"name": "a", "max_pairs": 250}],
        targets=[entry | {"name": "b", "max_pairs": 60}],
    )
    assert again == found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"sources": []}, "sources: "),
        ({"sources": [{"name": "x", "kind": "riddles"}]}, "sources.0"),
        ({"sources": [{"name": "x", "kind": "arithmetic"}] * 2}, "a name of its own"),
        (
            {"sources": [WRONG | {"questions": ["y"], "answers": ["z"]}]},
            "x: y, z is no source",
        ),
        (
            {"sources": [WRONG | {"questions": ["y"], "answers": ["y"]}]},
            "these would be right",
        ),
    ],
)
def test_mistakes_in_the_configuration(
    tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_instructions_config(config_in(tmp_path, **content))
