"""Split corpora into training, target and judge documents, without leakage between them.

    python -m data_tools.build_corpora configs/corpora_demo.yaml --output data/demo

reads every corpus that the YAML names, drops copies and near-copies (one document of each cluster
stays, over all corpora and targets together), and writes JSONL:

    text/sources/NAME.jsonl   what a model may be trained on
    text/targets/NAME.jsonl   what a search may look at
    text/judge/NAME.jsonl     what no search ever sees: mixtures are judged on it
    text/heldout/NAME.jsonl   the judge's part of each source, to evaluate sources one by one
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import orjson
from pydantic import BaseModel, ConfigDict, Field

from data_tools.commands import run_command, tool_parser
from data_tools.copies import CopyIndex, exact_words
from data_tools.ledger import Ledger, folder_output
from data_tools.outputs import claim, write_if_changed
from data_tools.schema import read_schema
from data_tools.texts import (
    Corpus,
    Document,
    EditedCorpus,
    FilesCorpus,
    ShuffledCorpus,
    is_installed,
    list_files,
    read_documents,
)
from fastmix_mega.errors import UserError


class CorporaConfig(BaseModel):
    """The YAML of `build_corpora` and `prepare`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: Annotated[list[Corpus], Field(min_length=1)]
    targets: list[Corpus] = []
    """Domains that are no source; half of the documents are for the search, half for judging."""
    average_target: bool = True
    """Adds the target `average`: equal parts, in characters, of every source but the junk and what
    is made from other sources."""
    vocab_size: Annotated[int, Field(ge=300)] = 32000
    """Of the tokenizer that `prepare` trains."""
    heldout: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share of a source's documents for the search's targets, and the same again for judging."""
    min_document: Annotated[int, Field(ge=1)] = 200
    """Shorter documents are left out (characters)."""
    max_document: Annotated[int, Field(ge=1)] = 12_000
    """Longer documents are cut here, so that no single file makes up a corpus (characters)."""
    near_copy: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the smaller document's word 5-grams from which two are near-copies."""


def load_corpora_config(path: Path) -> CorporaConfig:
    """Read and validate the YAML; UserError says what is wrong where."""
    config = read_schema(path, CorporaConfig)
    names = [corpus.name for corpus in (*config.sources, *config.targets)]
    if len(set(names)) < len(names) or (config.average_target and "average" in names):
        raise UserError(f"{path}: every corpus and target needs a name of its own")
    real = {corpus.name for corpus in config.sources if not isinstance(corpus, ShuffledCorpus)}
    for corpus in config.sources:
        if isinstance(corpus, ShuffledCorpus) and corpus.of not in real:
            raise UserError(
                f"{path}: {corpus.name} is made from {corpus.of!r}, which is no source of text"
            )
    if any(isinstance(corpus, ShuffledCorpus) for corpus in config.targets):
        raise UserError(f"{path}: what is made from a source can be a source, never a target")
    return config


def corpora_texts(config: CorporaConfig, output: Path) -> list[Path]:
    """The JSONL files that `build_corpora` writes: sources, held-out parts, targets, judges."""
    real = [corpus.name for corpus in config.sources if not isinstance(corpus, ShuffledCorpus)]
    targets = [corpus.name for corpus in config.targets]
    targets += ["average"] if config.average_target else []
    named = {
        "sources": [corpus.name for corpus in config.sources],
        "heldout": real,
        "targets": targets,
        "judge": targets,
    }
    text = output / "text"
    return [text / folder / f"{name}.jsonl" for folder, names in named.items() for name in names]


def corpora_inputs(config: CorporaConfig, base: Path) -> list[Path]:
    """The user's files that the corpora are read from."""
    return [
        path
        for corpus in (*config.sources, *config.targets)
        if isinstance(corpus, FilesCorpus) and not is_installed(corpus.root)
        for _, path in list_files(corpus, base)
    ]


def build_corpora(
    config: CorporaConfig,
    output: Path,
    base: Path,
    also_read: Sequence[Path] = (),
    overwrite: bool = False,
) -> list[Path]:
    """Write the JSONL files below `output`/text.

    What an earlier configuration left there is removed, its token files too: a corpus that was
    renamed would otherwise stay, with documents that now are held out under another name.

    Args:
        config: which corpora.
        output: made if it is missing; each file appears whole.
        base: relative folders of the configuration start here.
        also_read: further files that must not be written, the configuration's own for example.
        overwrite: replace files that are not ours.

    Returns:
        The files written: sources, held-out parts, targets, judges.

    Raises:
        UserError: for a missing or too small corpus, or a file in the folder that is not ours.
    """
    ledger, texts = Ledger(output), corpora_texts(config, output)
    read = [*corpora_inputs(config, base), *also_read]
    with claim([folder_output(ledger, "text", texts)], read, overwrite):
        parts = _all_parts(config, base)
        ledger.add(texts)
        ledger.remove_others(texts)
        for path in texts:
            write_jsonl(path, parts[path.parent.name, path.stem])
    return texts


Parts = dict[tuple[str, str], list[Document]]
"""By folder and name."""


def _all_parts(config: CorporaConfig, base: Path) -> Parts:
    # Case and punctuation count here: code that differs in them is other code.
    copies = CopyIndex(config.near_copy, exact_words)
    # Targets come first: a document that a source shares with a target belongs to the target.
    targets = {
        corpus.name: _take(corpus, read_documents(corpus, base), config, copies)
        for corpus in config.targets
    }
    sources = {
        corpus.name: _take(corpus, read_documents(corpus, base), config, copies)
        for corpus in config.sources
        if not isinstance(corpus, ShuffledCorpus)
    }
    parts: Parts = {}
    for name, documents in targets.items():
        half = len(documents) // 2
        if half == 0:
            raise UserError(
                f"target {name} has only {len(documents)} different documents; it needs at least 2"
            )
        parts["targets", name], parts["judge", name] = documents[:half], documents[half:]
    searched: dict[str, list[Document]] = {}
    for name, documents in sources.items():
        held = max(1, round(config.heldout * len(documents)))
        if len(documents) < 3:
            raise UserError(
                f"corpus {name} has only {len(documents)} different documents; it needs at least 3 "
                "(copies of what another corpus holds are dropped)"
            )
        searched[name], parts["heldout", name] = documents[:held], documents[held : 2 * held]
        parts["sources", name] = documents[2 * held :]
    for corpus in config.sources:
        if isinstance(corpus, ShuffledCorpus):
            parts["sources", corpus.name] = _derive(corpus, parts["sources", corpus.of])
    if config.average_target:
        junk = {corpus.name for corpus in config.sources if corpus.junk}
        judged = {name: parts["heldout", name] for name in sources}
        parts["targets", "average"] = _equal_parts(_without(searched, junk))
        parts["judge", "average"] = _equal_parts(_without(judged, junk))
    return parts


def write_jsonl(path: Path, documents: Iterable[Document]) -> None:
    lines = [orjson.dumps({"id": name, "text": text}) + b"\n" for name, text in documents]
    write_if_changed(path, b"".join(lines))


def _take(
    corpus: Corpus, documents: Iterable[Document], config: CorporaConfig, copies: CopyIndex
) -> list[Document]:
    """New documents in their order, until the corpus is full."""
    taken: list[Document] = []
    size = 0
    for identifier, text in documents:
        text = text.strip()[: config.max_document]
        if len(text) < config.min_document or not copies.add_if_new(identifier, text):
            continue
        taken.append((identifier, text))
        size += len(text)
        if size >= corpus.max_bytes:
            break
    return taken


def _derive(corpus: ShuffledCorpus, documents: Sequence[Document]) -> list[Document]:
    """Junk or near-copies from another corpus's training documents, up to the corpus's size."""
    derived: list[Document] = []
    size = 0
    for identifier, text in documents:
        dice = random.Random(f"{corpus.name}/{identifier}")
        if isinstance(corpus, EditedCorpus):
            made = "".join(
                piece for piece in re.findall(r"\s*\S+", text) if dice.random() >= corpus.dropped
            )
        else:
            characters = list(text)
            dice.shuffle(characters)
            made = "".join(characters)
        derived.append((f"{corpus.kind}/{identifier}", made))
        size += len(text)
        if size >= corpus.max_bytes:
            break
    return derived


def _without(parts: dict[str, list[Document]], names: set[str]) -> dict[str, list[Document]]:
    return {name: documents for name, documents in parts.items() if name not in names}


def _equal_parts(parts: dict[str, list[Document]]) -> list[Document]:
    """As many characters of each part as the smallest has."""
    budget = min(sum(len(text) for _, text in documents) for documents in parts.values())
    chosen: list[Document] = []
    for documents in parts.values():
        left = budget
        for identifier, text in documents:
            if left <= 0:
                break
            chosen.append((identifier, text[:left]))
            left -= len(text)
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    parser = tool_parser("build_corpora", __doc__ or "")
    parser.add_argument("config", type=Path, help="YAML that names the corpora")
    parser.add_argument("--output", type=Path, required=True, help="folder for text/")

    parser.add_argument(
        "--overwrite", action="store_true", help="replace files in the folder that are not ours"
    )

    def work(options: argparse.Namespace) -> None:
        config = load_corpora_config(options.config)
        base = options.config.parent
        build_corpora(config, options.output, base, [options.config], options.overwrite)

    return run_command(parser, work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
