"""Tokenizers changed in how they take text: what spells a special token, and the space before it.

Two questions a tokenizer's own library leaves to its file. Whether the name of a special token in a
text becomes that token: `literal` variants take it for text like any other, `spelled` ones for the
token. And whether a text gets a space before it that it does not have (sentencepiece's dummy
prefix, `Prepend`, `Metaspace`, `add_prefix_space`): `continuing` variants put none there, for text
that follows on other text.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sentencepiece import sentencepiece_model_pb2 as proto

_PIECE = proto.ModelProto.SentencePiece


def alias_of(number: int) -> str:
    """What the special token `number` is called where its own name is text: no text holds it."""
    return f"\ufdd3\ufdd4{number}\ufdd4\ufdd3"


def sentencepiece_variant(
    content: bytes, special: Collection[str], *, spelled: bool, continuing: bool
) -> bytes:
    """A sentencepiece model in which text spells the `special` pieces, or does not."""
    model = proto.ModelProto.FromString(content)
    for piece in model.pieces:
        if piece.piece in special and piece.type in (_PIECE.CONTROL, _PIECE.USER_DEFINED):
            piece.type = _PIECE.USER_DEFINED if spelled else _PIECE.CONTROL
    if continuing:
        model.normalizer_spec.add_dummy_prefix = False
    found: bytes = model.SerializeToString()
    return found


def sentencepiece_types(content: bytes) -> tuple[list[str], list[str], bool]:
    """The control pieces, the user-defined pieces, and whether texts get a dummy prefix."""
    model = proto.ModelProto.FromString(content)
    by_type: dict[int, list[str]] = {}
    for piece in model.pieces:
        by_type.setdefault(piece.type, []).append(piece.piece)
    control, defined = by_type.get(_PIECE.CONTROL, []), by_type.get(_PIECE.USER_DEFINED, [])
    return control, defined, model.normalizer_spec.add_dummy_prefix


def json_variant(content: str, aliases: Mapping[str, str], *, continuing: bool) -> tuple[str, bool]:
    """A tokenizer.json in which some tokens have other names.

    Args:
        content: of the tokenizer.json.
        aliases: new names by old ones.
        continuing: whether no space is put before a text.

    Returns:
        The new content, and whether it has other steps than the old one.
    """
    found: dict[str, Any] = json.loads(content)
    if aliases:
        _rename(found, aliases)
    changed = continuing and _drop_prefixes(found)
    return json.dumps(found), changed


def _rename(found: dict[str, Any], aliases: Mapping[str, str]) -> None:
    model = found["model"]
    vocabulary: Any = model.get("vocab")
    unknown = model.get("unk_token")
    if isinstance(vocabulary, dict):
        model["vocab"] = {aliases.get(name, name): n for name, n in vocabulary.items()}
        if unknown is not None:
            model["unk_token"] = aliases.get(unknown, unknown)
    else:
        place = model.get("unk_id")
        unknown = None if place is None else vocabulary[place][0]
        model["vocab"] = [[aliases.get(name, name), score] for name, score in vocabulary]
    # As an added token the unknown token's name would be taken for it; the model keeps it.
    found["added_tokens"] = [
        token | {"content": aliases.get(token["content"], token["content"])}
        for token in found["added_tokens"]
        if token["content"] != unknown or unknown in aliases
    ]


def _drop_prefixes(found: dict[str, Any]) -> bool:
    changed = False
    for key in ("normalizer", "pre_tokenizer"):
        for step in _steps(found.get(key)):
            if step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never":
                step["prepend_scheme"] = "never"
                step.pop("add_prefix_space", None)
                changed = True
            if step["type"] == "ByteLevel" and step.get("add_prefix_space"):
                step["add_prefix_space"] = False
                changed = True
            if step["type"] == "Prepend":
                # Nothing before the text: what an empty sequence of steps does.
                step.clear()
                step.update(type="Sequence", normalizers=[])
                changed = True
    return changed


def _steps(step: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    if step is None:
        return
    yield step
    for key in ("normalizers", "pretokenizers"):
        for each in step.get(key, []):
            yield from _steps(each)
