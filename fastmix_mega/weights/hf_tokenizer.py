"""The tokenizer's part of a Hugging Face folder.

A tokenizer.json goes along as it is. A sentencepiece model is translated into one, which is kept
only if it gives the same tokens for a few hundred texts; the .model goes along in any case.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from sentencepiece import sentencepiece_model_pb2 as proto
from tokenizers import AddedToken, decoders, models, normalizers

from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.files import write_atomic, write_json
from fastmix_mega.reading import read_json

SPACE = "▁"
GENERATION = {
    # Token types, which the fast tokenizer gives by default, are no input of these models.
    "model_input_names": ["input_ids", "attention_mask"],
    # New tokens follow the prompt directly in every row of a batch.
    "padding_side": "left",
}
TEXTS = (
    "def f(x):\n    return x  # \tkept\n\n",
    "The model learns, from 1234 texts (and 5.6e-7 more).",
    "  leading, trailing and   inner spaces  ",
    "Zoë naïvely paid 3 € for 你好, Ω≈∑ and 🙂🙃.",
    "",
    "<s>in text</s>, <unk> and <pad> are text",
)


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> list[str]:
    """Write what transformers' AutoTokenizer needs; returns what to tell the user."""
    source = Path(tokenizer.path)
    lines: list[str] = []
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "eos_token": tokenizer.name_of(tokenizer.eod),
        **GENERATION,
        # Nothing is learnt of padding, which an attention mask hides; any token will do.
        "pad_token": tokenizer.name_of(tokenizer.eod),
    }
    if tokenizer.bos is not None:
        settings["bos_token"] = tokenizer.name_of(tokenizer.bos)
    if tokenizer.is_json:
        write_atomic(folder / "tokenizer.json", source.read_bytes())
        for name in ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
            beside = source.parent / name
            if beside.is_file():
                write_atomic(folder / name, beside.read_bytes())
        if (folder / "tokenizer_config.json").exists():
            settings = _completed(folder / "tokenizer_config.json", settings)
    else:
        # Text never becomes a control symbol of sentencepiece's.
        settings["split_special_tokens"] = True
        write_atomic(folder / "tokenizer.model", source.read_bytes())
        translated = translate(source.read_bytes())
        different = 0 if translated is None else differences(tokenizer, translated)
        if translated is not None and not different:
            write_atomic(folder / "tokenizer.json", translated.to_str())
        else:
            settings |= {"tokenizer_class": "LlamaTokenizer", "legacy": False}
            why = "has a kind" if translated is None else f"gives other tokens ({different} texts)"
            lines.append(
                f"warning: {source} {why} that no tokenizer.json of ours can be; only the "
                "sentencepiece model goes along, and transformers may split text otherwise"
            )
    write_json(folder / "tokenizer_config.json", settings)
    return lines


def _completed(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer_config.json with what generating needs and it does not say."""
    given: dict[str, Any] = read_json(path)
    kept = {key: given[key] for key in given if given[key] is not None}
    needed = (*GENERATION, "eos_token", "pad_token")
    return given | {key: settings[key] for key in needed if key not in kept}


def translate(content: bytes) -> tokenizers.Tokenizer | None:
    """A sentencepiece model as a tokenizer.json; None for kinds other than BPE and unigram."""
    model = proto.ModelProto.FromString(content)
    pieces, trained, normal = model.pieces, model.trainer_spec, model.normalizer_spec
    kinds = proto.ModelProto.SentencePiece
    unknown = next((at for at, piece in enumerate(pieces) if piece.type == kinds.UNKNOWN), None)
    if trained.model_type == proto.TrainerSpec.BPE:
        vocabulary = {piece.piece: at for at, piece in enumerate(pieces)}
        inner: Any = models.BPE(
            vocab=vocabulary,
            merges=_merges([piece.piece for piece in pieces if piece.type == kinds.NORMAL]),
            unk_token=None if unknown is None else pieces[unknown].piece,
            fuse_unk=True,
            byte_fallback=trained.byte_fallback,
        )
    elif trained.model_type == proto.TrainerSpec.UNIGRAM:
        scored = _scores(pieces, (kinds.CONTROL, kinds.UNKNOWN))
        inner = models.Unigram(scored, unknown, trained.byte_fallback)
    else:
        return None
    found = tokenizers.Tokenizer(inner)
    steps: list[Any] = []
    if normal.precompiled_charsmap:
        steps.append(normalizers.Precompiled(normal.precompiled_charsmap))
    if normal.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
    if normal.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    found.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    back = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if normal.add_dummy_prefix:
        back.append(decoders.Strip(" ", 1, 0))
    found.decoder = decoders.Sequence(back)
    found.add_special_tokens(
        [
            AddedToken(piece.piece, special=True, normalized=False)
            for piece in pieces
            if piece.type in (kinds.CONTROL, kinds.UNKNOWN)
        ]
    )
    found.add_tokens(
        [
            AddedToken(piece.piece, special=False, normalized=False)
            for piece in pieces
            if piece.type == kinds.USER_DEFINED
        ]
    )
    return found


def _scores(pieces: Sequence[Any], controls: Sequence[int]) -> list[tuple[str, float]]:
    """Log-probabilities by piece: control symbols are never worth more than their characters."""
    least = min((piece.score for piece in pieces if piece.type not in controls), default=0.0) - 20
    return [
        (piece.piece, len(piece.piece) * least if piece.type in controls else piece.score)
        for piece in pieces
    ]


def differences(tokenizer: Tokenizer, other: tokenizers.Tokenizer) -> int:
    """Of texts of many kinds, how many the two split otherwise."""
    random = np.random.default_rng(0)
    special = set(tokenizer.special_tokens) | {"<unk>"}
    names = [tokenizer.name_of(number) for number in range(tokenizer.vocab_size)]
    usable = [
        number
        for number, name in enumerate(names)
        if name not in special and not name.startswith("<0x")
    ]
    made = [tokenizer.decode(random.choice(usable, 40).tolist()) for _ in range(300)]
    texts = [*TEXTS, *made]
    # As transformers does where a tokenizer_config.json says `split_special_tokens`.
    other.encode_special_tokens = True
    pairs = zip(tokenizer.encode(texts), other.encode_batch(texts), strict=True)
    return sum(mine.tolist() != theirs.ids for mine, theirs in pairs)


def is_translation(model: Path, translated: Path) -> bool:
    """Whether a tokenizer.json is our own translation of the sentencepiece model beside it."""
    try:
        Tokenizer(model)
        content = json.loads(translated.read_bytes())
    except (OSError, ValueError):
        return False
    ours = translate(model.read_bytes())
    return ours is not None and json.loads(ours.to_str()) == content


def _merges(pieces: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs that BPE joins, in its order: pieces stand in the order in which they were made.

    A piece that can be made of two pairs lists both; sentencepiece joins whichever is there.
    """
    order = {piece: at for at, piece in enumerate(pieces)}
    found = []
    for piece in pieces:
        halves = ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        known = [pair for pair in halves if pair[0] in order and pair[1] in order]
        found += sorted(known, key=lambda pair: (order[pair[0]], order[pair[1]]))
    return found
