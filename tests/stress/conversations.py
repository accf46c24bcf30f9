"""Tokenizers x templates x kinds of records: no answer token is lost, no prompt token counts.

    python -m tests.stress.conversations --conversations 20000

writes conversations in every form that `preprocess --mode sft` reads, encodes them, and compares
tokens and masks with a reference that shares nothing with the product: it writes the text of each
template itself, turns every token back into bytes by its name, and gives a token its mask by the
bytes that it stands for. Text must come back whole, and what messages spell must be text.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import pre_tokenizers

from data_tools.chat_encoding import ChatEncoder, ChatOptions
from data_tools.inputs import cut_into_units, list_inputs
from data_tools.readers import Problem, ReadOptions
from data_tools.records import shape_of
from data_tools.templates import parse_plain
from fastmix_mega.data.tokenizer import Tokenizer
from tests.stress.tokenizer_kinds import KINDS, MARKS, WORDS, Kind, write_kind

START, STOP = MARKS


class Turn(NamedTuple):
    role: str
    text: str
    counts: bool


class Part(NamedTuple):
    """Of a text as it ought to be: text, or one special token."""

    text: str
    counts: bool
    special: bool = False


HEAD = "{{ '<|im_start|>' + m.role + '\\n' }}"
TEMPLATES = {
    "difference": "{% for m in messages %}" + HEAD + "{{ m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "blocks": "{% for m in messages %}" + HEAD + "{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}{% else %}"
    "{{ m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}",
    "two blocks": "{% for m in messages %}" + HEAD + "{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}{% endgeneration %}{% generation %}<|im_end|>"
    "{% endgeneration %}{{ '\\n' }}{% else %}{{ m.content + '<|im_end|>\\n' }}{% endif %}"
    "{% endfor %}",
    # The prompt opens a thought that the answers do not have.
    "thinking prompt": "{% for m in messages %}" + HEAD + "{{ m.content + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}"
    "{% endif %}",
}
RECORDS = ("messages", "conversations", "prompt", "lists", "alpaca", "question", "marked")
SNIPPETS = (
    *("def f(x):\n    if x:\n        return x\n", "  ", "\n", "\n\n", "\t", " x ", "User:\n"),
    *("Assistant:", "System:", "\\User:", "<|im_end|>", "<|im_start|>assistant\n", "</s>", "[SEP]"),
    *("<|endoftext|>", "<mask>", "<think>", "</think>", "<t", "<", "0", "1 2", "."),
)
WIDE = ("é", "Zoë", "東京", "🙂", "Ω≈", "\u00a0", "ﬁ", "\u200b", "ñ\u0303")


def some_text(draw: random.Random, kind: Kind, least: int) -> str:
    snippets = SNIPPETS if kind.ascii_only else SNIPPETS + WIDE
    text = ""
    for _ in range(draw.randint(least, 8)):
        text += draw.choice(snippets) if draw.random() < 0.5 else draw.choice(WORDS)
        text += " " * draw.choice((0, 1, 1, 2))
    if kind.pieces == "words" or kind.ascii_only:
        text = text.replace("\t", " ")
    # What WordPiece takes for nothing is no answer.
    return text if text.strip() or not least else text + "word"


def some_turns(draw: random.Random, kind: Kind, record: str) -> list[Turn]:
    turns: list[Turn] = []
    rounds = draw.randint(1, 3) if record not in ("prompt", "question") else 1
    if draw.random() < 0.3:
        turns.append(Turn("system", some_text(draw, kind, 1), False))
    for number in range(rounds):
        turns.append(Turn("user", some_text(draw, kind, 1), False))
        counts = record != "lists" or number == rounds - 1
        if record == "marked" and number < rounds - 1:
            counts = draw.random() < 0.5
        turns.append(Turn("assistant", some_text(draw, kind, 1), counts))
    return turns


def as_row(draw: random.Random, record: str, turns: Sequence[Turn]) -> dict[str, Any]:
    """The turns as a row of this form."""
    row: dict[str, Any] = {}
    said = list(turns)
    if record not in ("lists", "messages") and said[0].role == "system":
        row["system"] = said.pop(0).text
    if record in ("messages", "lists", "marked"):
        messages: list[dict[str, Any]] = [{"role": t.role, "content": t.text} for t in said]
        if record == "lists":
            return row | {"prompt": messages[:-1], "completion": messages[-1:]}
        if record == "marked":
            name, values = draw.choice(
                [("weight", (0, 1)), ("train", (False, True)), ("loss", (False, None))]
            )
            for message, turn in zip(messages, said, strict=True):
                if turn.role == "assistant":
                    message[name] = values[turn.counts]
        return row | {"messages": messages}
    if record == "conversations":
        names = {"user": "human", "assistant": "gpt"}
        return row | {"conversations": [{"from": names[t.role], "value": t.text} for t in said]}
    if record == "alpaca":
        *earlier, question, answer = said
        pairs = zip(earlier[::2], earlier[1::2], strict=True)
        history = [[one.text, two.text] for one, two in pairs]
        return row | {"instruction": question.text, "output": answer.text, "history": history}
    keys = ("prompt", "completion") if record == "prompt" else ("question", "answer")
    return row | dict(zip(keys, (turn.text for turn in said), strict=True))


def as_parts(template: str, turns: Sequence[Turn], kind: Kind) -> list[Part]:
    """The text that a template ought to give, and what counts of it."""
    parts: list[Part] = []
    for turn in turns:
        counts, answer = turn.counts, turn.role == "assistant"
        if template == "raw":
            parts.append(Part(turn.text, counts))
        elif template == "plain":
            heading = turn.role.capitalize() + ":\n"
            lines = (
                "\\" + line
                if line.lstrip("\\") in ("User:", "Assistant:", "System:", "Tool:")
                else line
                for line in turn.text.split("\n")
            )
            parts += [Part(heading, False), Part("\n".join(lines), counts)]
            if not answer:
                parts.append(Part("\n", False))
        else:
            parts += [Part(START, False, True), Part(f"{turn.role}\n", False)]
            parts += [Part(turn.text, counts), Part(STOP, counts, True), Part("\n", False)]
        if answer and template in ("plain", "raw"):
            parts.append(Part(kind.end, counts, True))
    return parts


BYTES = {}
_printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
_others = [byte for byte in range(256) if byte not in _printed]
for _byte in range(256):
    BYTES[chr(_byte) if _byte in _printed else chr(256 + _others.index(_byte))] = _byte
assert set(BYTES) == set(pre_tokenizers.ByteLevel.alphabet())


def bytes_of(name: str, kind: Kind) -> bytes:
    """What a token that is not special stands for."""
    if kind.pieces == "bytes":
        return bytes(BYTES[letter] for letter in name)
    if kind.pieces == "words":
        return name.removeprefix("##").encode()
    if len(name) == 6 and name.startswith("<0x"):
        return bytes([int(name[3:5], 16)])
    return name.replace("▁", " ").encode()


def expected_mask(
    names: Sequence[str], special: set[str], parts: Sequence[Part], kind: Kind
) -> list[int] | str:
    """The mask by the reference, or what is wrong with the tokens."""
    mask: list[int] = []
    tokens = iter(range(len(names)))
    waiting = list(parts)
    token = next(tokens, None)
    strip = False
    while waiting or token is not None:
        # A run of text up to the next special token, byte by byte with what counts.
        text, counted = b"", []
        while waiting and not waiting[0].special:
            part = waiting.pop(0)
            written = part.text.encode()
            text += written
            counted += [part.counts] * len(written)
        if strip:
            kept = len(text) - len(text.decode().lstrip().encode())
            text, counted = text[kept:], counted[kept:]
        run = []
        while token is not None and names[token] not in special:
            run.append(token)
            token = next(tokens, None)
        found = [bytes_of(names[number], kind) for number in run]
        if kind.pieces == "words":
            places = [n for n, byte in enumerate(text) if not chr(byte).isspace()]
            text, counted = bytes(text[n] for n in places).lower(), [counted[n] for n in places]
        shift = 1 if b"".join(found) == b" " + text else 0
        if b"".join(found)[shift:] != text:
            return f"the text {text!r} became {b''.join(found)!r}"
        end = -shift
        for piece in found:
            begin, end = end, end + len(piece)
            # The space that stands before a text alone belongs to what follows.
            stands = counted[max(begin, 0) : end] or counted[:1]
            mask.append(int(any(stands)))
        strip = False
        if waiting:
            part = waiting.pop(0)
            if token is None or names[token] != part.text:
                return f"instead of {part.text} stands {None if token is None else names[token]}"
            mask.append(int(part.counts))
            token, strip = next(tokens, None), kind.strips and part.text != kind.end
        elif token is not None:
            return f"the special token {names[token]} came of text"
    mask[:1] = [0]
    return mask


class Campaign:
    """Counts what was compared, and every difference."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.draw = folder, random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self._tokenizers: dict[str, Tokenizer] = {}

    def run(self, total: int) -> None:
        cases = [
            (name, template, record)
            for name in KINDS
            for template in ("plain", "raw", *TEMPLATES)
            for record in RECORDS
            if template in ("plain", "raw") or not name.startswith("sentencepiece")
        ]
        for name, template, record in cases:
            self.compare(name, template, record, -(-total // len(cases)))

    def compare(self, name: str, template: str, record: str, count: int) -> None:
        kind, tokenizer = KINDS[name], self._tokenizer(name)
        path = self.folder / "rows.jsonl"
        chats = []
        with path.open("w") as file:
            for _ in range(count):
                turns = some_turns(self.draw, kind, record)
                if template == "raw" and turns[0].role == "assistant":
                    continue
                chats.append(turns)
                file.write(json.dumps(as_row(self.draw, record, turns)) + "\n")
        given = template
        if template in TEMPLATES:
            given = str(self.folder / "t.jinja")
            Path(given).write_text(TEMPLATES[template])
        (input_file,) = list_inputs([path])
        read = ReadOptions()
        options = ChatOptions(given, (shape_of(input_file, read),))
        encoder = ChatEncoder(tokenizer, options, bos=False)
        units = cut_into_units([input_file], "line")
        rows = [row for unit in units for row in encoder.read(input_file, 0, unit, read)]
        assert len(rows) == len(chats)
        encoded = iter(encoder.encode([row for row in rows if not isinstance(row, Problem)]))
        for turns, row in zip(chats, rows, strict=True):
            found = row if isinstance(row, Problem) else next(encoded)
            case = f"{name}, {template}, {record}, {turns!r}"
            self.counts["conversations"] += 1
            if isinstance(found, Problem):
                self._fail("refused", f"{case}: {found.reason}")
                continue
            names = [tokenizer.name_of(int(number)) for number in found[0]]
            special = set(tokenizer.special_tokens) - {"<unk>", "[UNK]"}
            wanted = expected_mask(names, special, as_parts(template, turns, kind), kind)
            self.counts["tokens"] += len(names)
            if isinstance(wanted, str):
                self._fail("texts that do not come back", f"{case}: {wanted}")
                continue
            pairs = list(zip(wanted, found[1].tolist(), strict=True))
            self.counts["answer tokens"] += sum(wanted)
            for what, pair in (("answer tokens lost", (1, 0)), ("prompt tokens counted", (0, 1))):
                for place in (n for n, each in enumerate(pairs) if each == pair):
                    self._fail(what, f"{case}: token {place} of {names}")
            if template == "plain" and kind.pieces != "words":
                self._parsed(tokenizer, found[0].tolist(), turns, case)

    def _parsed(
        self, tokenizer: Tokenizer, ids: list[int], turns: Sequence[Turn], case: str
    ) -> None:
        parts = [
            list(part)
            for end, part in itertools.groupby(ids, lambda number: number == tokenizer.eod)
            if not end
        ]
        found = parse_plain([tokenizer.decode(part) for part in parts])
        if found != [{"role": turn.role, "content": turn.text} for turn in turns]:
            self._fail("conversations that do not come back", f"{case}: {found}")

    def _tokenizer(self, name: str) -> Tokenizer:
        if name not in self._tokenizers:
            folder = self.folder / str(len(self._tokenizers))
            self._tokenizers[name] = Tokenizer(write_kind(name, folder))
        return self._tokenizers[name]

    def _fail(self, what: str, case: str) -> None:
        self.counts[what] += 1
        self.failures.append(f"{what}: {case}")


def lines(campaign: Campaign) -> Iterator[str]:
    yield f"tokenizers: {len(KINDS)}, templates: {len(TEMPLATES) + 2}, records: {len(RECORDS)}"
    names = ("conversations", "tokens", "answer tokens", "answer tokens lost")
    names += ("prompt tokens counted", "texts that do not come back", "refused")
    for name in (*names, "conversations that do not come back"):
        yield f"{name}: {campaign.counts[name]:,}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), options.seed)
        campaign.run(options.conversations)
    print("\n".join([*lines(campaign), *campaign.failures[:20]]))
    return bool(campaign.failures)


if __name__ == "__main__":
    raise SystemExit(main())
