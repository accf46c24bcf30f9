"""Twelve kinds of tokenizers, made on the spot, and what each of their tokens stands for."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

MARKS = ("<|im_start|>", "<|im_end|>")
WORDS = ("def", "return", "if", "else", "the", "a", "of", "sum", "word", "number", "hello")
WORDS = (*WORDS, "User", "Assistant", "System", "is", "it", "and")
TEXTS = [
    f"{one} {two}\n    {two}({one}):\n        return {one}  # {two}\n\nUser:\n{one}.\nSystem:\n"
    for one in WORDS
    for two in WORDS
]
ASCII = "".join(map(chr, range(32, 127))) + "\n"


@dataclass(frozen=True)
class Kind:
    """One kind of tokenizer."""

    make: Callable[[], Any]
    """A Tokenizer of the tokenizers library, or the bytes of a sentencepiece model."""
    end: str
    """Ends a document."""
    pieces: str = "bytes"
    """How names stand for text: `bytes` (byte-level), `spaces` (U+2581), `words` (WordPiece)."""
    ascii_only: bool = False
    """Whether it knows no other letters."""
    strips: bool = False
    """Whether its special tokens take away the white space after them."""


def byte_level(
    *, prefix: bool = False, trim: bool = True, split: bool = False, ignore: bool = False
) -> Tokenizer:
    made = Tokenizer(models.BPE(ignore_merges=ignore))
    steps = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=not split)
    if split:
        pattern = Regex(r"\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+")
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(pattern, "isolated"), steps]
        )
    else:
        made.pre_tokenizer = steps
    made.decoder = decoders.ByteLevel()
    special = [] if split else ["<|endoftext|>", *MARKS]
    made.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=420,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if split:
        made.add_special_tokens(["<|endoftext|>", *MARKS])
    made.post_processor = processors.ByteLevel(trim_offsets=trim)
    return made


def llama3() -> Tokenizer:
    made = byte_level(split=True, ignore=True)
    end = made.token_to_id("<|endoftext|>")
    made.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(
                single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", end)]
            ),
        ]
    )
    return made


def roberta() -> Tokenizer:
    made = byte_level(prefix=True)
    made.add_special_tokens(["<s>", "</s>", AddedToken("<mask>", lstrip=True, special=True)])
    ids = {name: made.token_to_id(name) for name in ("</s>", "<s>")}
    made.post_processor = processors.RobertaProcessing(
        ("</s>", ids["</s>"]), ("<s>", ids["<s>"]), trim_offsets=True, add_prefix_space=True
    )
    return made


def stripping() -> Tokenizer:
    """Special tokens take the white space after them, as Phi-3's do."""
    made = byte_level(trim=False)
    content = json.loads(made.to_str())
    for token in content["added_tokens"]:
        token["rstrip"] = True
    return Tokenizer.from_str(json.dumps(content))


def wordpiece() -> Tokenizer:
    letters = [letter for letter in ASCII if letter.strip() and not letter.isupper()]
    names = ["[UNK]", "[SEP]", *MARKS, *letters, *(f"##{letter}" for letter in letters)]
    names += [word.lower() for word in WORDS if len(word) > 1]
    vocabulary = {name: number for number, name in enumerate(dict.fromkeys(names))}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(["[UNK]", "[SEP]", *MARKS])
    return made


def unigram() -> Tokenizer:
    scored = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((mark, 0.0) for mark in MARKS)]
    scored += [("▁", -4.0), *((letter, -5.0) for letter in ASCII if letter != " ")]
    scored += [(f"▁{word}", -3.0) for word in WORDS] + [(word, -4.0) for word in WORDS]
    scored = list({name: (name, score) for name, score in scored}.values())
    made = Tokenizer(models.Unigram(scored, 0, False))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.decoder = decoders.Metaspace()
    made.add_special_tokens(["<s>", "</s>", *MARKS])
    return made


def byte_fallback(scheme: str) -> Tokenizer:
    """Like Llama 2's: `legacy` puts a space before every part of a text, `first` before a text."""
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if scheme == "legacy":
        made.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    special = ["<unk>", "<s>", "</s>", *MARKS]
    made.train_from_iterator(
        [text[:40] for text in TEXTS],
        trainers.BpeTrainer(
            vocab_size=420,
            special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))],
            show_progress=False,
        ),
    )
    content = json.loads(made.to_str())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] in special]
    made = Tokenizer.from_str(json.dumps(content))
    back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*back, decoders.Strip(" ", 1, 0)])
    return made


def characters() -> Tokenizer:
    names = ["[UNK]", "[EOS]", *MARKS, *ASCII]
    made = Tokenizer(models.BPE({name: n for n, name in enumerate(names)}, [], unk_token="[UNK]"))
    made.decoder = decoders.Fuse()
    made.add_special_tokens(["[UNK]", "[EOS]", *MARKS])
    return made


def pieces_model(kind: str = "bpe", **more: Any) -> bytes:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=written,
        model_type=kind,
        vocab_size=400 if kind == "bpe" else 310,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        minloglevel=2,
        num_threads=1,
        **more,
    )
    return written.getvalue()


KINDS = {
    "GPT-2": Kind(byte_level, "<|endoftext|>"),
    "Llama 3": Kind(llama3, "<|endoftext|>"),
    "RoBERTa": Kind(roberta, "</s>"),
    "Phi-3": Kind(stripping, "<|endoftext|>", strips=True),
    "BERT": Kind(wordpiece, "[SEP]", "words", ascii_only=True),
    "unigram": Kind(unigram, "</s>", "spaces", ascii_only=True),
    "Llama 2": Kind(lambda: byte_fallback("legacy"), "</s>", "spaces"),
    "Metaspace first": Kind(lambda: byte_fallback("first"), "</s>", "spaces"),
    "characters": Kind(characters, "[EOS]", "spaces", ascii_only=True),
    "sentencepiece": Kind(lambda: pieces_model(add_dummy_prefix=False), "</s>", "spaces"),
    "sentencepiece, dummy prefix": Kind(pieces_model, "</s>", "spaces"),
    "sentencepiece unigram, user's symbols": Kind(
        lambda: pieces_model("unigram", user_defined_symbols=list(MARKS)), "</s>", "spaces"
    ),
}


def write_kind(name: str, folder: Path) -> Path:
    """The tokenizer's file; its config says what ends a document."""
    folder.mkdir(parents=True, exist_ok=True)
    made = KINDS[name].make()
    if isinstance(made, bytes):
        (folder / "t.model").write_bytes(made)
        return folder / "t.model"
    made.save(str(folder / "tokenizer.json"))
    config = {"eos_token": KINDS[name].end}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder / "tokenizer.json"
