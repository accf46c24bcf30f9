"""Where text comes from: a folder of files, or what every Python installation holds.

Each reader yields (identifier, text) pairs; identifiers do not depend on where things are
installed, so that the same files give the same corpora on every machine.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from email.parser import BytesParser
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from data_tools.questions import docstrings, doctest_questions, pod_questions
from fastmix_mega.errors import UserError

Document = tuple[str, str]


class _Corpus(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[\w.+-]+$")]
    max_bytes: Annotated[int, Field(gt=0)] = 2_000_000
    """Characters to take at most; files are taken in an order that a hash decides."""
    junk: bool = False
    """Left out of the target `average`."""


class FilesCorpus(_Corpus):
    """Whole files: any folder of text."""

    kind: Literal["files"]
    root: str
    """A folder, or `python:stdlib`, `package:NAME`, `site-packages`."""
    patterns: list[str]
    """Globs below the root, for example `**/*.py`."""
    exclude: list[str] = []
    """Files whose path holds one of these pieces are left out."""


class DocstringsCorpus(FilesCorpus):
    """The docstrings of Python files, a document a file."""

    kind: Literal["docstrings"]  # type: ignore[assignment]


class QuestionsCorpus(FilesCorpus):
    """Questions with their answers, a document each, as plain text."""

    kind: Literal["questions"]  # type: ignore[assignment]
    format: Literal["pod", "doctest"]
    """`pod`: the headings of Perl's FAQ and the text below them. `doctest`: expressions of Python
    docstrings and what they print."""


class MetadataCorpus(_Corpus):
    """The READMEs that installed packages carry in their metadata.

    This project's own is left out: an edit of it must not change the demo's tokenizer.
    """

    kind: Literal["metadata"]


class TopicsCorpus(_Corpus):
    """The language reference that Python's help() shows."""

    kind: Literal["pydoc_topics"]


class ShuffledCorpus(_Corpus):
    """Junk: the characters of another corpus's documents in random order."""

    kind: Literal["shuffled"]
    of: str


class EditedCorpus(ShuffledCorpus):
    """Near-copies: another corpus's documents with some of their words left out."""

    kind: Literal["edited"]  # type: ignore[assignment]
    dropped: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the words."""


Corpus = Annotated[
    FilesCorpus
    | DocstringsCorpus
    | QuestionsCorpus
    | MetadataCorpus
    | TopicsCorpus
    | ShuffledCorpus
    | EditedCorpus,
    Field(discriminator="kind"),
]


def read_documents(corpus: Corpus, base: Path) -> Iterator[Document]:
    """All documents of a corpus, in a fixed pseudo-random order.

    Args:
        corpus: anything but `shuffled` and `edited`, made from another corpus's documents.
        base: relative roots start here.

    Raises:
        UserError: if a folder or package is missing or holds no text.
    """
    if isinstance(corpus, FilesCorpus):
        documents = _files(corpus, base, _extraction(corpus))
    elif isinstance(corpus, MetadataCorpus):
        documents = _metadata()
    elif isinstance(corpus, TopicsCorpus):
        documents = _topics()
    else:
        raise AssertionError("junk is made from documents, not read")
    return documents


def _extraction(corpus: FilesCorpus) -> Callable[[str], list[str]]:
    """What turns a file into documents."""
    if isinstance(corpus, QuestionsCorpus):
        return pod_questions if corpus.format == "pod" else doctest_questions
    if isinstance(corpus, DocstringsCorpus):
        return lambda code: ["\n\n".join(docstrings(code))]
    return lambda text: [text]


def _files(
    corpus: FilesCorpus, base: Path, extract: Callable[[str], list[str]]
) -> Iterator[Document]:
    names = [name for name, _ in list_files(corpus, base)]
    root = _resolve_root(corpus.root, base, corpus.name)
    label = corpus.root if is_installed(corpus.root) else corpus.name
    for name in _hash_order(names):
        text = _read_text(root / name)
        for number, part in enumerate([] if text is None else extract(text)):
            yield f"{label}/{name}" + (f"#{number}" if number else ""), part


def list_files(corpus: FilesCorpus, base: Path) -> list[tuple[str, Path]]:
    """The files of a corpus: their names below its root, sorted, and their paths.

    Raises:
        UserError: if the root is missing, a pattern is no pattern, or nothing matches.
    """
    root = _resolve_root(corpus.root, base, corpus.name)
    try:
        paths = {path for pattern in corpus.patterns for path in root.glob(pattern)}
    except (ValueError, NotImplementedError) as error:
        raise UserError(
            f"corpus {corpus.name}: {', '.join(corpus.patterns)}: {error}; patterns are relative "
            "to the root, for example **/*.txt"
        ) from None
    names = [path.relative_to(root).as_posix() for path in paths if path.is_file()]
    # A package's own tests and caches are excluded by pieces of the path below the root.
    kept = [name for name in names if not any(piece in f"/{name}" for piece in corpus.exclude)]
    if not kept:
        raise UserError(
            f"corpus {corpus.name}: no file below {root} matches {', '.join(corpus.patterns)}"
        )
    return [(name, root / name) for name in sorted(kept)]


def is_installed(root: str) -> bool:
    """Whether a root names a part of this installation rather than a folder of the user's."""
    return root in ("python:stdlib", "site-packages") or root.startswith("package:")


def _resolve_root(root: str, base: Path, corpus: str) -> Path:
    if root == "python:stdlib":
        return Path(sysconfig.get_paths()["stdlib"])
    if root == "site-packages":
        return Path(sysconfig.get_paths()["purelib"])
    if root.startswith("package:"):
        package = root.removeprefix("package:")
        try:
            spec = importlib.util.find_spec(package)
        except (ImportError, ValueError):
            spec = None
        if spec is None or spec.origin is None:
            raise UserError(f"corpus {corpus}: the Python package {package} is not installed")
        return Path(spec.origin).parent
    directory = base / root
    if not directory.is_dir():
        raise UserError(f"corpus {corpus}: {directory} is not a folder")
    return directory


def _read_text(path: Path) -> str | None:
    """The file's text, or None if it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError):
        return None


def _metadata() -> Iterator[Document]:
    site = Path(sysconfig.get_paths()["purelib"])
    folders = {
        path.parent.name: path
        for path in site.glob("*.dist-info/METADATA")
        if not path.parent.name.startswith("fastmix_mega-")
    }
    for name in _hash_order(folders):
        message = BytesParser().parsebytes(folders[name].read_bytes())
        body = message.get_payload(decode=True)
        assert isinstance(body, bytes)
        yield f"metadata/{name.split('-')[0]}", body.decode("utf-8", "replace")


def _topics() -> Iterator[Document]:
    from pydoc_data.topics import topics

    for name in _hash_order(topics):
        yield f"pydoc/{name}", topics[name]


def _hash_order(names: Sequence[str] | dict[str, Path] | dict[str, str]) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
