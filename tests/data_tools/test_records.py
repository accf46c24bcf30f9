"""Rows of every form: each field is used, or the row says why it cannot be."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from data_tools import preprocess
from data_tools.columns import map_row, parse_mapping
from data_tools.messages import read_messages
from data_tools.readers import Problem
from data_tools.records import FIELDS, Chat, conversation_of
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.tokenizer import Tokenizer
from tests.data_tools.chats import byte_tokenizer, write_rows

USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}


def shape_for(row: dict[str, Any]) -> str:
    names = ("messages", "conversations", "prompt", "instruction", "question")
    known = {"instruction": "alpaca"}
    return next(known.get(name, name) for name in names if name in row)


def read(row: dict[str, Any], train_on: str = "all") -> Chat | Problem:
    return conversation_of(row, shape_for(row), train_on)


def told(row: dict[str, Any], train_on: str = "all") -> list[str]:
    """Each message as `role: content`, with a star where it counts."""
    found = read(row, train_on)
    assert isinstance(found, Chat), found
    return [
        f"{turn['role']}: {turn['content']}"
        + "*" * (turn["role"] == "assistant" and turn.get("weight", 1))
        for turn in found.messages
    ]


def test_what_the_formats_mean_is_used() -> None:
    pair = {"instruction": "two", "output": "2"}
    earlier = {"history": [["one", "1"]], "system": "brief"}
    assert told(pair | earlier) == [
        *("system: brief", "user: one", "assistant: 1*", "user: two", "assistant: 2*")
    ]
    assert told(pair | {"input": "", "history": [], "system": ""}) == told(pair)
    assert told(pair | {"context": "c"})[0] == "user: two\n\nc"
    system = ["system: s", "user: q", "assistant: a*"]
    assert told({"system": "s", "messages": [USER, ANSWER]}) == system
    assert told({"system": "s", "prompt": "q", "completion": "a"}) == system
    assert told({"system_prompt": "s", "question": "q", "answer": "a"}) == system
    assert told({"system": "s", "messages": json.dumps([USER, ANSWER])}) == system
    first = {"role": "system", "content": "s"}
    assert told({"system": "s", "messages": [first, USER, ANSWER]}) == system
    asked = {"context": "text", "question": "q", "answer": "a"}
    assert told(asked) == ["user: text\n\nq", "assistant: a*"]


@pytest.mark.parametrize("name", ["weight", "train", "training", "trainable", "loss", "label"])
@pytest.mark.parametrize("no", [0, 0.0, False, "false"])
def test_what_is_marked_not_to_count_does_not(name: str, no: Any) -> None:
    bad = {"role": "assistant", "content": "bad", name: no}
    good = ANSWER | {name: 1}
    found = told({"messages": [USER, bad, USER, good]})
    assert found == ["user: q", "assistant: bad", "user: q", "assistant: a*"]
    found = read({"messages": [USER, bad]})
    assert found == Problem("no message of the assistant's counts")
    found = read({"messages": [USER, ANSWER], name: no})
    assert isinstance(found, Problem)
    assert f"marked not to be trained on ({name!r}" in found.reason
    assert told({"messages": [USER, ANSWER | {name: None}], name: True})[-1] == "assistant: a*"


def test_the_last_turn_alone() -> None:
    turns = [USER, ANSWER, USER, ANSWER, {"role": "tool", "content": "t"}, ANSWER, USER]
    assert [text[-1] for text in told({"messages": turns}, "last")] == list("qaq*t*q")
    silent = [USER, ANSWER, USER, ANSWER | {"weight": 0}]
    assert isinstance(read({"messages": silent}, "last"), Problem)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [USER, ANSWER], "images": ["x.png"]}, "the row has 'images'"),
        ({"messages": [USER | {"images": ["x"]}, ANSWER]}, "message 1 .* 'images'"),
        ({"messages": [USER, ANSWER], "weight": 0.5}, "must be 0 or 1.*--map"),
        ({"messages": [USER, ANSWER | {"weight": 2}]}, "message 2 .*must be 0 or 1"),
        ({"messages": [USER | {"train": True}, ANSWER]}, "only the assistant's are"),
        ({"messages": [USER, ANSWER], "documents": ["d"]}, "'documents'.*--map documents="),
        ({"messages": [USER, ANSWER | {"train_detail": [1]}]}, "as a whole or not at all"),
        ({"messages": [USER, ANSWER], "system": 1}, "'system' is not a string"),
        ({"system": "s", "messages": [{"role": "system", "content": "t"}, ANSWER]}, "another"),
        ({"messages": [USER, ANSWER], "tools": [1]}, "without the name of a function"),
        ({"messages": [USER, ANSWER], "tools": "f"}, "not a list"),
        ({"messages": [USER, ANSWER | {"tool_calls": [{}]}]}, "without the name"),
        ({"messages": [USER | {"tool_calls": [{"name": "f"}]}]}, "not the assistant's"),
        ({"messages": [USER, ANSWER | {"reasoning": 1}]}, "'reasoning' that is not"),
        ({"question": "q", "answer": "B", "choices": ["r", "b"]}, "preprocess_choices"),
        ({"question": "q", "answer": "a", "context": 1}, "'context' is not a string"),
        ({"instruction": "i", "output": "o", "history": ["q", "a"]}, "list of pairs"),
        ({"instruction": "i", "output": "o", "history": [["q", 1]]}, "not a string"),
        ({"instruction": "i", "output": "o", "input": "x", "context": "y"}, "both given"),
        ({"prompt": "q", "completion": "a", "thinking": 1}, "'thinking' is not a string"),
    ],
)
def test_what_cannot_be_used_is_a_problem(row: dict[str, Any], reason: str) -> None:
    found = read(row)
    assert isinstance(found, Problem)
    assert re.search(reason, found.reason), found.reason


def test_tools_and_calls_in_every_form_are_one() -> None:
    call = {"name": "f", "arguments": {"x": 1}}
    wanted = [{"type": "function", "function": call}]
    older = {"name": "f", "arguments": '{"x": 1}'}
    for turn in (
        {"role": "assistant", "content": None, "tool_calls": wanted},
        {"role": "assistant", "content": "", "tool_calls": json.dumps([call])},
        {"role": "assistant", "function_call": older},
        {"from": "function_call", "value": json.dumps(call)},
        {"role": "tool_call", "content": json.dumps([call])},
    ):
        (found,) = read_messages([turn], "messages")
        assert found["tool_calls"] == wanted, turn
        assert found["content"] == ""
    tool = {"type": "function", "function": {"name": "f"}}
    for columns in (
        {"tools": [tool]},
        {"tools": json.dumps([tool])},
        {"functions": [{"name": "f"}]},
    ):
        found_chat = read({"messages": [USER, ANSWER], **columns})
        assert isinstance(found_chat, Chat)
        assert found_chat.tools == [tool]


def test_columns_of_other_names() -> None:
    mapping = parse_mapping(FIELDS, "instruction=query, output=data.response,label=")
    row = {"query": "q", "data": {"response": "a"}, "label": "maths", "instruction": "no"}
    assert map_row(row, mapping) == {"instruction": "q", "output": "a"}
    for wrong, word in (
        ("query", "must look like"),
        ("text=a", "known are"),
        ("input=a,input=b", "once"),
    ):
        with pytest.raises(Exception, match=word):
            parse_mapping(FIELDS, wrong)


TOOLS = (
    "{% if tools %}Tools: {% for t in tools %}{{ t | tojson }}{% endfor %}\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_tools_and_reasoning_through_a_template_from_every_kind_of_file(tmp_path: Path) -> None:
    """JSONL, Parquet and Arrow give the same tokens, and unknown columns are told."""
    path = byte_tokenizer(tmp_path)
    (tmp_path / "t.jinja").write_text(TOOLS)
    call = {"type": "function", "function": {"name": "sum", "arguments": {"of": "two"}}}
    rows = [
        {
            "id": "first",
            "tools": [{"type": "function", "function": {"name": "sum"}}],
            "messages": [
                USER,
                {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "name": "sum", "content": "5"},
                ANSWER,
            ],
        },
        {"id": "second", "messages": [USER, ANSWER | {"reasoning_content": "I know"}]},
    ]
    write_rows(tmp_path / "a.jsonl", rows)
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, tmp_path / "b.parquet")
    with pyarrow.ipc.new_stream(str(tmp_path / "c.arrow"), table.schema) as stream:
        stream.write_table(table)
    contents = set()
    for name in ("a.jsonl", "b.parquet", "c.arrow"):
        words = [str(tmp_path / name), "--mode", "sft", "--template", str(tmp_path / "t.jinja")]
        words += ["--tokenizer", str(path), "--output-prefix", str(tmp_path / "out"), "--overwrite"]
        assert preprocess.main(words) == 0
        contents.add((tmp_path / "out.bin").read_bytes())
        manifest = IndexedTokens(tmp_path / "out").manifest
        assert manifest is not None
        assert manifest.made_by["notes"] == {"column 'id' is not used": 2}
    assert len(contents) == 1
    file = IndexedTokens(tmp_path / "out")
    assert file.mask is not None
    tokenizer = Tokenizer(path)
    learnt = tokenizer.decode(file.tokens[file.mask.tokens == 1])
    assert learnt == (
        '{"name": "sum", "arguments": {"of": "two"}}<|im_end|>a<|im_end|>'
        "<think>I know</think>a<|im_end|>"
    )
    assert 'Tools: {"type": "function", "function": {"name": "sum"}}' in tokenizer.decode(
        file.tokens
    )


def test_mapped_columns_and_the_last_turn_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = byte_tokenizer(tmp_path)
    history = [["one", "1"]]
    rows = [{"query": "what", "response": "it", "history": history, "label": "maths"}] * 3
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, tmp_path / "q.parquet")
    for source in (write_rows(tmp_path / "q.jsonl", rows), tmp_path / "q.parquet"):
        words = [str(source), "--mode", "sft", "--tokenizer", str(path)]
        words += ["--output-prefix", str(tmp_path / "q"), "--overwrite"]
        mapping = ["--map", "instruction=query,output=response"]
        assert preprocess.main(words) == 2
        assert "--map" in capsys.readouterr().err
        assert preprocess.main([*words, *mapping]) == 2
        assert "has 'label' 'maths'" in capsys.readouterr().err
        mapping[-1] += ",label="
        assert preprocess.main([*words, *mapping, "--train-on", "last", "--fresh"]) == 0
        file = IndexedTokens(tmp_path / "q")
        assert file.mask is not None
        learnt = Tokenizer(path).decode(file.tokens[file.mask.tokens == 1])
        assert learnt == "it<|endoftext|>" * 3
    with pytest.raises(SystemExit):
        preprocess.main([*words, "--map", "nothing=query"])
    assert "is no field" in capsys.readouterr().err
    assert preprocess.main([*words, *mapping, "--mode", "text"]) == 2
