"""Conversations as text and tokens: nothing is lost, and exactly the answers count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from data_tools.chat_encoding import ChatEncoder, ChatOptions
from data_tools.messages import Conversation
from data_tools.pieces import Piece
from data_tools.readers import Problem
from data_tools.templates import HEADINGS, PlainTemplate, load_template, parse_plain
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError
from tests.data_tools.chats import CHATML, byte_tokenizer, sentencepiece_model
from tests.stress.tokenizer_kinds import write_kind

# What could be taken for a heading, an escape or a special token, among ordinary text.
contents = some.lists(
    some.one_of(
        some.text(max_size=6),
        some.sampled_from([*HEADINGS.values(), "\n", "\\", "\r", "</s>", "<|im_end|>", "User:\n"]),
    ),
    max_size=6,
).map("".join)
messages = some.lists(
    some.fixed_dictionaries({"role": some.sampled_from(sorted(HEADINGS)), "content": contents}),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module")
def pieces_model(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(sentencepiece_model(tmp_path_factory.mktemp("sentencepiece")))


@pytest.fixture(scope="module")
def bytes_model(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(byte_tokenizer(tmp_path_factory.mktemp("bytes")))


def cut(tokens: np.ndarray, end: int) -> list[list[int]]:
    turns: list[list[int]] = [[]]
    for token in tokens.tolist():
        if token == end:
            turns.append([])
        else:
            turns[-1].append(token)
    return turns


@pytest.mark.parametrize("kind", ["sentencepiece", "bytes"])
def test_plain_comes_back_from_the_tokens(
    kind: str, pieces_model: Tokenizer, bytes_model: Tokenizer
) -> None:
    """Any conversation, whatever its messages spell: the same messages, and the same answers."""
    tokenizer = pieces_model if kind == "sentencepiece" else bytes_model
    encoder = ChatEncoder(tokenizer, ChatOptions(), bos=False)

    @given(messages)
    @settings(max_examples=60, deadline=None)
    def comes_back(conversation: Conversation) -> None:
        # sentencepiece writes a space as U+2581 and cannot keep the character itself.
        conversation = [
            turn | {"content": turn["content"].replace("\u2581", "_")} for turn in conversation
        ]
        conversation = [*conversation, {"role": "assistant", "content": "yes"}]
        pieces = PlainTemplate().render(conversation)
        ((tokens, mask),) = encoder.encode([pieces])
        turns = [tokenizer.decode(turn) for turn in cut(tokens, tokenizer.eod)]
        assert parse_plain(turns) == conversation
        answers = [turn["content"] for turn in conversation if turn["role"] == "assistant"]
        counted = cut(tokens[mask == 1], tokenizer.eod)[:-1]
        escaped = [piece.text for piece in pieces if piece.counts]
        assert [tokenizer.decode(each) for each in counted] == escaped
        assert len(escaped) == len(answers)

    comes_back()


def test_plain_is_what_the_documentation_shows(bytes_model: Tokenizer) -> None:
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Two and two?\nUser:"},
        {"role": "assistant", "content": "Four."},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "No.", "weight": 0},
    ]
    text = "".join(
        piece.text + "</s>" * piece.ends for piece in PlainTemplate().render(conversation)
    )
    assert text == (
        "System:\nBe brief.\nUser:\nTwo and two?\n\\User:\nAssistant:\nFour.</s>"
        "User:\nSure?\nAssistant:\nNo.</s>"
    )
    encoder = ChatEncoder(bytes_model, ChatOptions(), bos=False)
    ((tokens, mask),) = encoder.encode([PlainTemplate().render(conversation)])
    assert bytes_model.decode(tokens[mask == 1]) == "Four.<|endoftext|>"
    assert (tokens == bytes_model.eod).sum() == 2


def counted_text(tokenizer: Tokenizer, template: str, conversation: Conversation) -> str:
    encoder = ChatEncoder(tokenizer, ChatOptions(template), bos=False)
    pieces = load_template(template, tokenizer).render(conversation)
    assert not isinstance(pieces, Problem), pieces
    ((tokens, mask),) = encoder.encode([pieces])
    assert tokenizer.decode(tokens) == "".join(piece.text for piece in pieces)
    return tokenizer.decode(tokens[mask == 1])


CONVERSATION = [
    {"role": "user", "content": "who?"},
    {"role": "assistant", "content": "Zoë — 東京 "},
    {"role": "user", "content": "sure?"},
    {"role": "assistant", "content": " yes"},
]


def test_a_hugging_face_template(bytes_model: Tokenizer) -> None:
    """Without generation blocks: what each answer adds, up to its end-of-turn token."""
    assert counted_text(bytes_model, "hf", CONVERSATION) == "Zoë — 東京 <|im_end|> yes<|im_end|>"
    template = load_template("hf", bytes_model)
    pieces = template.render(CONVERSATION)
    assert isinstance(pieces, list)
    assert "".join(piece.text for piece in pieces).endswith("assistant\n yes<|im_end|>\n")
    ids = bytes_model.encode(["<|im_start|>user\nwho?"])[0]
    ((tokens, _),) = ChatEncoder(bytes_model, ChatOptions("hf"), False).encode([pieces])
    assert tokens[: len(ids)].tolist() == ids.tolist()


def test_generation_blocks(bytes_model: Tokenizer, tmp_path: Path) -> None:
    marked = tmp_path / "marked.jinja"
    marked.write_text(
        "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
        "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}\n"
        "{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
        "{% endif %}{% endfor %}"
    )
    found = counted_text(bytes_model, str(marked), CONVERSATION)
    assert found == "Zoë — 東京 <|im_end|> yes<|im_end|>"
    silent = [CONVERSATION[0], CONVERSATION[1] | {"weight": 0}, *CONVERSATION[2:]]
    assert counted_text(bytes_model, str(marked), silent) == " yes<|im_end|>"


def test_templates_that_cannot_be_used(
    bytes_model: Tokenizer, pieces_model: Tokenizer, tmp_path: Path
) -> None:
    def wrong(text: str, tokenizer: Tokenizer = bytes_model) -> None:
        (tmp_path / "t.jinja").write_text(text)
        load_template(str(tmp_path / "t.jinja"), tokenizer)

    with pytest.raises(UserError, match="Expected an expression"):
        wrong("{% for %}")
    with pytest.raises(UserError, match="give a tokenizer"):
        wrong(CHATML, pieces_model)
    with pytest.raises(UserError, match="cannot read"):
        load_template(str(tmp_path / "none.jinja"), bytes_model)
    (tmp_path / "t.jinja").write_text("{{ raise_exception('only users') }}")
    found = load_template(str(tmp_path / "t.jinja"), bytes_model).render(CONVERSATION)
    assert isinstance(found, Problem)
    assert "only users" in found.reason
    # A template that drops earlier answers: which tokens count could not be told.
    (tmp_path / "t.jinja").write_text("{{ messages[-1].content }}")
    found = load_template(str(tmp_path / "t.jinja"), bytes_model).render(CONVERSATION)
    assert isinstance(found, Problem)
    (tmp_path / "t.jinja").write_text("{{ messages.append(1) }}")
    found = load_template(str(tmp_path / "t.jinja"), bytes_model).render(CONVERSATION)
    assert isinstance(found, Problem), "the sandbox must refuse to change what it is given"


def rendered(tokenizer: Tokenizer, folder: Path, text: str, turns: Conversation) -> str:
    """What counts, between angle quotes, of the whole text."""
    (folder / "t.jinja").write_text(text)
    pieces = load_template(str(folder / "t.jinja"), tokenizer).render(turns)
    if isinstance(pieces, Problem):
        return f"problem: {pieces.reason}"
    return "".join(f"«{piece.text}»" if piece.counts else piece.text for piece in pieces)


@pytest.mark.parametrize("answer", ["it is", "<t", "<", "<think>x</think>y", "assistant", "a"])
def test_a_prompt_may_open_a_thought(bytes_model: Tokenizer, tmp_path: Path, answer: str) -> None:
    """DeepSeek-V3 and Nemotron: one turn was refused as if something had been written anew."""
    text = (
        "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant <think>{% endif %}"
    )
    turns = [CONVERSATION[0], {"role": "assistant", "content": answer}]
    start = "<|im_start|>user who?<|im_end|><|im_start|>assistant "
    found = rendered(bytes_model, tmp_path, text, turns)
    given = answer.startswith("<think>")
    # Where the prompt itself opens the answer's thought, the model does not write that.
    wanted = f"{start}<think>«{answer[7:]}<|im_end|>»" if given else f"{start}«{answer}<|im_end|>»"
    assert found == wanted


def test_marks_of_any_number(bytes_model: Tokenizer, tmp_path: Path) -> None:
    """TRL's phi3 and diffusion_gemma training templates mark more pieces than there are answers."""
    text = (
        "{% for m in messages %}{% if m.role == 'assistant' %}[{% generation %}{{ m.content }}"
        "{% endgeneration %}]{% generation %}<|im_end|>{% endgeneration %}{% else %}"
        "{{ m.content }}{% endif %}{% endfor %}{% generation %}<|endoftext|>{% endgeneration %}"
    )
    turns = [*CONVERSATION[:1], {"role": "assistant", "content": "no"}, *CONVERSATION[2:]]
    found = rendered(bytes_model, tmp_path, text, turns)
    assert found == "who?[«no»]«<|im_end|>»sure?[« yes»]«<|im_end|><|endoftext|>»".replace(
        "<|im_end|><", "<|im_end|>»«<"
    )
    turns[1]["weight"] = 0
    found = rendered(bytes_model, tmp_path, text, turns)
    assert found == "who?[no]<|im_end|>sure?[« yes»]«<|im_end|>»«<|endoftext|>»"
    nested = "{% generation %}{% generation %}{{ messages[1].content }}{% endgeneration %}!"
    nested = "{{ messages[0].content }}" + nested + "{% endgeneration %}"
    assert rendered(bytes_model, tmp_path, nested, CONVERSATION[:2]) == "who?«Zoë — 東京 !»"
    nothing = (
        "{% for m in messages %}{{ m.content }}{% generation %}{% endgeneration %}{% endfor %}"
    )
    assert "marked nothing" in rendered(bytes_model, tmp_path, nothing, CONVERSATION[:2])


@pytest.mark.parametrize(
    ("text", "left_out"),
    [
        ("{{ m.content[:3] }}", "leaves the text of message 1 (user)"),
        ("{% if m.role == 'user' %}{{ m.content }}{% endif %}", "message 2"),
        ("{% if m.role == 'assistant' %}{{ m.content }}{% endif %}", "message 1 (user)"),
        ("{% for p in m.content %}{% if p.type == 'text' %}{{ p }}{% endif %}{% endfor %}", "1"),
        ("{{ m.content | trim | replace(' ', '\n') }}", None),
        ("{{ m.content | tojson }}", None),
    ],
)
def test_a_template_that_leaves_something_out(
    bytes_model: Tokenizer, tmp_path: Path, text: str, left_out: str | None
) -> None:
    whole = "{% for m in messages %}<|im_start|>" + text + "<|im_end|>{% endfor %}"
    turns = [CONVERSATION[0], {"role": "assistant", "content": 'it is "so"\nand'}]
    found = rendered(bytes_model, tmp_path, whole, turns)
    assert ("problem" in found) == (left_out is not None)
    assert (left_out or "") in found


def test_what_is_given_to_a_template(bytes_model: Tokenizer, tmp_path: Path) -> None:
    """The date is always the same; unknown marks are told; tools and documents are None."""
    text = (
        "{{ strftime_now('%d %b %Y') }}{{ tools is none and documents is none }}"
        "{% for m in messages %}<|start|>{{ m.content }}{% endfor %}"
    )
    found = rendered(bytes_model, tmp_path, text, CONVERSATION[:2])
    assert found.startswith("26 Jul 2024True<|start|>who?")
    template = load_template(str(tmp_path / "t.jinja"), bytes_model)
    template.render(CONVERSATION[:2])
    assert ["<|start|>, which is no token" in note for note in template.notes] == [True]
    lost = "{% for m in messages %}{{ m.content }}{% endfor %}"
    tools = [{"type": "function", "function": {"name": "sum"}}]
    (tmp_path / "t.jinja").write_text(lost)
    found_or = load_template(str(tmp_path / "t.jinja"), bytes_model).render(CONVERSATION[:2], tools)
    assert found_or == Problem("the chat template leaves out the tool 'sum'")
    thought = [CONVERSATION[0], CONVERSATION[1] | {"reasoning_content": "hm"}]
    assert "the reasoning of message 2" in rendered(bytes_model, tmp_path, lost, thought)
    for name in ("plain", "raw"):
        assert isinstance(load_template(name, bytes_model).render(thought), Problem)
        assert isinstance(load_template(name, bytes_model).render(CONVERSATION, tools), Problem)


def test_the_last_turn_of_a_template_that_forgets_thoughts(
    bytes_model: Tokenizer, tmp_path: Path
) -> None:
    """Like Qwen 3: only the last answer keeps what was thought before it."""
    text = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and loop.last %}<think>{{ m.reasoning_content }}</think>"
        "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    thought = {"reasoning_content": "hm"}
    turns = [turn | thought if turn["role"] == "assistant" else turn for turn in CONVERSATION]
    assert "writes earlier messages anew" in rendered(bytes_model, tmp_path, text, turns)
    turns[1]["weight"] = 0
    found = rendered(bytes_model, tmp_path, text, turns)
    assert found.endswith("<|im_start|>assistant\n«<think>hm</think> yes<|im_end|>»\n")
    assert "Zoë — 東京 <|im_end|>" in found


def test_the_prompt_is_one_text_for_every_tokenizer(tmp_path: Path) -> None:
    """With a dummy prefix too: no space before the answer, and the messages come back."""
    turns = [*CONVERSATION[:1], {"role": "assistant", "content": "it is a number"}, CONVERSATION[2]]
    turns.append({"role": "assistant", "content": " and a word"})
    for name in ("sentencepiece", "sentencepiece, dummy prefix", "Llama 2", "Metaspace first"):
        tokenizer = Tokenizer(write_kind(name, tmp_path / name))
        pieces = load_template("plain", tokenizer).render(turns)
        assert isinstance(pieces, list)
        ((tokens, mask),) = ChatEncoder(tokenizer, ChatOptions(), bos=False).encode([pieces])
        prompt = tokenizer.encode(["User:\nwho?\nAssistant:\n"])[0].tolist()
        assert tokens[: len(prompt)].tolist() == prompt
        assert not mask[: len(prompt)].any()
        assert mask[len(prompt)] == 1
        assert parse_plain([tokenizer.decode(part) for part in cut(tokens, tokenizer.eod)]) == turns


def test_raw(bytes_model: Tokenizer) -> None:
    pair = [{"role": "user", "content": "2+2="}, {"role": "assistant", "content": "4"}]
    template = load_template("raw", bytes_model)
    assert template.render(pair) == [Piece("2+2="), Piece("4", counts=True, ends=True)]
    assert isinstance(template.render([pair[0] | {"content": ""}, pair[1]]), Problem)
