"""What an audit looks at: the sources of a blend, how much text they have, and the run."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fastmix_mega.config.parse import read_yaml
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.errors import UserError
from fastmix_mega.export.blend import Blend
from fastmix_mega.export.plan import Part, Plan
from fastmix_mega.export.take import names_of, read_blends
from fastmix_mega.export.units import Size, to_token_shares
from fastmix_mega.mixture.file import MixtureFile, read_mixture
from fastmix_mega.reading import parse_json, read_limited

Harm = Literal["fails", "wrong", "warning", "note"]
HARMS: tuple[Harm, ...] = ("fails", "wrong", "warning", "note")
"""The run would stop; it would train on something else than asked; it may; good to know."""
INDEXED = ("fastmix", "megatron", "megatron-split-json", "megatron-bridge", "automodel", "gpt-neox")
"""Formats whose paths are prefixes of .bin and .idx."""


@dataclass(frozen=True)
class Finding:
    harm: Harm
    rule: str
    """The name of the rule, for scripts."""
    text: str
    do: str
    """What to do about it."""


@dataclass(frozen=True)
class Run:
    """The large run, and the machine that it is for."""

    budget: int
    seq_length: int = 4096
    max_maps: int = 65530
    """Memory maps of a process (vm.max_map_count)."""
    open_files: int = 1024
    """Open files of a process (ulimit -n): Python keeps one for every map."""
    targets: Sequence[str] = ()
    """Prefixes of text that no source may hold."""
    intended: Mapping[str, float] | None = None
    """Shares of tokens by source that the blend should give."""


@dataclass(frozen=True)
class Leaf:
    """One source of the blend."""

    name: str
    part: Part
    """Its weight as the file gives it."""
    detail: str
    """A subset or split within the path."""
    share: float | None
    """Of the run's tokens; None where the file's numbers cannot be converted."""
    epochs: float | None
    file: IndexedTokens | None = None


@dataclass(frozen=True)
class Case:
    format: str
    content: Any
    """The file as YAML or JSON gives it; None where it is neither."""
    blend: Blend
    leaves: list[Leaf]
    run: Run
    folder: Path
    broken: dict[str, str] = field(default_factory=dict)
    """Why token files do not open, by the source's name."""

    @property
    def shares(self) -> list[float]:
        """As the trainer normalises the file's numbers."""
        total = sum(leaf.part.weight for leaf in self.leaves)
        return [leaf.part.weight / total for leaf in self.leaves]


def read_case(
    path: Path, known: str | None, run: Run, sizes: Mapping[str, Size], root: Path | None = None
) -> list[Case]:
    """One case for every stage of the file.

    Args:
        path: the blend.
        known: its format; found out from its content if None.
        run: the large run.
        sizes: by the source's name or path.
        root: the folder from which the trainer reads relative paths.

    Raises:
        UserError: if the file cannot be read, or is nothing that we know.
    """
    try:
        text = read_limited(path).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise UserError(f"cannot read {path}: {reason}") from None
    content = _content(text)
    form = known or detect(text, content)
    blends = [_own(read_mixture(path))] if form == "fastmix" else read_blends(path, form)
    return [_case(form, content, blend, run, sizes, root or Path()) for blend in blends]


def detect(text: str, content: Any) -> str:
    """The format of a blend file, from its keys. Raises: UserError."""
    if isinstance(content, dict):
        for name, fits in _KEYS:
            if fits(content):
                return name
        if content and all(isinstance(value, int | float) for value in content.values()):
            return "weights"
    if "SOURCES = (" in text and "DatasetMixConfig" in text:
        return "torchtitan-main"
    if text.startswith("source,") and "token_share" in text.split("\n", 1)[0]:
        return "csv"
    words = text.split()
    if words and len(words) % 2 == 0 and all(_is_number(word) for word in words[::2]):
        return "megatron"
    raise UserError("this is no blend that is known here; name its format with --from")


def _has(*keys: str) -> Any:
    return lambda content: all(key in content for key in keys)


def _entries_have(key: str, *inner: str) -> Any:
    def fits(content: dict[str, Any]) -> bool:
        listed = content.get(key)
        return (
            isinstance(listed, list)
            and bool(listed)
            and all(isinstance(each, dict) for each in listed)
            and any(all(name in each for name in inner) for each in listed)
        )

    return fits


def _within(outer: str, inner: str) -> Any:
    return lambda content: isinstance(content.get(outer), dict) and inner in content[outer]


_KEYS: tuple[tuple[str, Any], ...] = (
    ("fastmix", lambda content: str(content.get("schema", "")).startswith("fastmix-mixture")),
    ("automodel", _has("domain_mixture")),
    ("megatron-bridge", _has("blend")),
    ("megatron-bridge-sft", _has("source")),
    ("energon", _has("splits")),
    ("levanter", _has("train_weights")),
    ("levanter", _within("data", "train_weights")),
    ("nanotron", _has("data_stages")),
    ("nanotron", _has("dataset_folder")),
    ("fast-llm", lambda content: content.get("type") == "blended"),
    ("fast-llm", _within("data", "datasets")),
    ("olmo-core-composable", _has("source_specs")),
    ("olmo-core", _entries_have("sources", "target_ratio")),
    ("torchtitan", _entries_have("sources", "dataset_path")),
    ("mosaicml-streaming", _has("streams")),
    ("gpt-neox", _has("train_data_paths")),
    ("gpt-neox", _has("train-data-paths")),
    ("llama-factory", _has("mix_strategy")),
    ("llama-factory", _has("interleave_probs")),
    ("ms-swift", _has("interleave_prob")),
    ("open-instruct", _has("dataset_mixer_list")),
    ("open-instruct", _has("dataset_mixer")),
    ("hf-datasets", _has("datasets", "probabilities")),
    ("trl", _entries_have("datasets", "fraction")),
    ("nemotron", _entries_have("datasets", "name", "path")),
    ("nemotron", _entries_have("train", "name", "path")),
    ("axolotl", _entries_have("datasets", "path")),
    ("megatron-split-json", lambda content: isinstance(content.get("train"), list)),
    ("weights", lambda content: isinstance(content.get("train"), dict)),
)


def _content(text: str) -> Any:
    try:
        return parse_json(text)
    except (ValueError, RecursionError):
        pass
    try:
        return read_yaml(text, "it")
    except UserError:
        return None


def _own(mixture: MixtureFile) -> Blend:
    """Every file of a source by itself, where all can be opened; else one entry a source."""
    try:
        return Blend(Plan(mixture).parts("{prefix}", counted=True))
    except UserError:
        pass
    parts = []
    for source in mixture.sources:
        prefixes = [source.prefix] if isinstance(source.prefix, str) else source.prefix or []
        path = prefixes[0] if len(prefixes) == 1 else ""
        if source.weight > 0:
            parts.append(Part(source.name, path, source.weight, source.tokens))
    return Blend(parts)


def _case(
    form: str, content: Any, blend: Blend, run: Run, sizes: Mapping[str, Size], root: Path
) -> Case:
    parts, unknown = to_token_shares([_rooted(p, root) for p in blend.parts], blend.unit, sizes)
    names = names_of(blend.parts)
    total = sum(part.weight for part in parts)
    files, broken = _open(form, [_rooted(part, root) for part in blend.parts], names)
    leaves = []
    for at, (name, part, given) in enumerate(zip(names, parts, blend.parts, strict=True)):
        share = None if unknown else part.weight / total
        epochs = None
        if share is not None and part.tokens:
            epochs = share * run.budget / part.tokens
        elif blend.unit == "epochs":
            epochs = given.weight
        detail = blend.leaves[at] if blend.leaves else ""
        counted = Part(
            given.source, _rooted(given, root).path, given.weight, part.tokens, part.rows
        )
        leaves.append(Leaf(name, counted, detail, share, epochs, files.get(name)))
    return Case(form, content, blend, leaves, run, root, broken)


def _rooted(part: Part, root: Path) -> Part:
    if not part.path or "://" in part.path or os.path.isabs(part.path):
        return part
    return Part(part.source, str(root / part.path), part.weight, part.tokens, part.rows)


def _open(
    form: str, parts: Sequence[Part], names: Sequence[str]
) -> tuple[dict[str, IndexedTokens], dict[str, str]]:
    """Token files by the source's name, and why the others do not open."""
    files, broken = {}, {}
    for name, part in zip(names, parts, strict=True):
        if form not in INDEXED or not part.path or re.match(r"[a-z0-9+]+://", part.path):
            continue
        try:
            files[name] = IndexedTokens(part.path)
        except UserError as error:
            broken[name] = str(error)
    return files, broken


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
