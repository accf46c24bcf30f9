"""Small tokenizers and conversations for the tests of instruction data."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import tokenizers

from data_tools.train_tokenizer import Training, train_tokenizer

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXT = "what is the sum of two and three in a language that every reader knows by heart"
WORDS = TEXT.split()


def sentence(seed: int, most: int = 12) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choices(WORDS, k=draw.randint(1, most)))


def conversation(seed: int) -> dict[str, Any]:
    """One to three rounds, now and then with a system message."""
    draw = random.Random(seed)
    turns = [{"role": "system", "content": sentence(seed + 1)}] if draw.random() < 0.3 else []
    for number in range(draw.randint(1, 3)):
        turns.append({"role": "user", "content": sentence(10 * seed + number)})
        turns.append({"role": "assistant", "content": sentence(77 * seed + number)})
    return {"messages": turns}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sentencepiece_model(folder: Path) -> Path:
    text = write_rows(folder / "text.jsonl", [{"text": sentence(n, 40)} for n in range(300)])
    train_tokenizer([text], folder / "t.model", Training(300, 100_000))
    return folder / "t.model"


def byte_tokenizer(folder: Path) -> Path:
    """A byte-level BPE as tokenizer.json, with ChatML's special tokens and template."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator([sentence(n, 40) for n in range(200)], trainer)
    made.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|endoftext|>", "chat_template": CHATML}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder / "tokenizer.json"
