"""What an export is made of: sources with a weight and paths, the same for every format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.errors import UserError
from fastmix_mega.mixture.file import MixtureFile


@dataclass(frozen=True)
class Part:
    """One file (or folder, or bucket) and its share of the training tokens."""

    source: str
    path: str
    weight: float
    tokens: int | None = None
    """In the file; None where nobody has counted."""
    rows: int | None = None
    """Documents in the file: rows of a trainer that reads one document a row."""


@dataclass(frozen=True)
class Plan:
    """The mixture as every format's writer takes it. Sources of weight 0 are gone."""

    mixture: MixtureFile
    """As it is exported: constrained, with all its sources."""
    paths: str | None = None
    """A template with {name} or {prefix} for the paths; None for the mixture's own prefixes."""
    budget_tokens: int | None = None
    valid: Sequence[str] = ()
    """Prefixes of held-out text, for the formats that hold it."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the file must know; a writer puts them in where comments can stand."""

    @property
    def weights(self) -> list[tuple[str, float]]:
        """Sources by name, without those of weight 0."""
        return [(each.name, each.weight) for each in self.mixture.sources if each.weight > 0]

    def parts(self, default: str | None, counted: bool = False) -> list[Part]:
        """Every path with its weight.

        A source of several files gives each file the share of its tokens, so that all its text
        is read equally often.

        Args:
            default: the template if the user gave none; None if this format cannot guess it.
            counted: whether to say how many tokens and rows every file has, as far as its token
                files are to be had.

        Raises:
            UserError: if a source has no path, or its files' sizes are needed and not to be had.
        """
        template = self.paths or default
        if template is None:
            raise UserError(
                "this format reads other files than ours; say where they are, for example "
                "--paths 's3://bucket/{name}'"
            )
        found: list[Part] = []
        for source in self.mixture.sources:
            if source.weight == 0:
                continue
            if "{prefix}" not in template:
                whole = Part(source.name, _filled(template, source.name, ""), source.weight)
                if counted:
                    prefixes = source.prefix or []
                    prefixes = [prefixes] if isinstance(prefixes, str) else prefixes
                    whole = _counted(whole, prefixes, source.tokens)
                found.append(whole)
                continue
            if source.prefix is None:
                raise UserError(
                    f"the mixture has no prefix for {source.name}; say where its files are, for "
                    "example --paths 'data/{name}'"
                )
            prefixes = [source.prefix] if isinstance(source.prefix, str) else source.prefix
            shares = _shares(source.name, prefixes)
            for prefix, share in zip(prefixes, shares, strict=True):
                if share > 0:
                    path = _filled(template, source.name, prefix)
                    part = Part(source.name, path, source.weight * share)
                    alone = source.tokens if len(prefixes) == 1 else None
                    found.append(_counted(part, [prefix], alone) if counted else part)
        return found


def refuse_spaces(parts: Sequence[Part], reader: str) -> None:
    """Raises: UserError if a path holds what the reader would split at."""
    for part in parts:
        if not part.path or any(letter.isspace() for letter in part.path):
            raise UserError(
                f"{reader} splits at spaces, so the path {part.path!r} of {part.source} cannot "
                "be given; move the files or link to them from a path without spaces"
            )


def number(value: float) -> str:
    """A weight that reads back exactly, without an exponent's surprises for a human."""
    return repr(float(value))


def _filled(template: str, name: str, prefix: str) -> str:
    return template.replace("{name}", name).replace("{prefix}", prefix)


def _counted(part: Part, prefixes: Sequence[str], named: int | None) -> Part:
    """With the counts of token files; without them, with the tokens that the mixture names."""
    try:
        files = [IndexedTokens(prefix) for prefix in prefixes]
    except UserError:
        files = []
    if not files:
        return replace(part, tokens=named)
    tokens = sum(file.num_tokens for file in files)
    return replace(part, tokens=tokens, rows=sum(file.num_documents for file in files))


def _shares(name: str, prefixes: Sequence[str]) -> list[float]:
    if len(prefixes) == 1:
        return [1.0]
    try:
        tokens = [IndexedTokens(prefix).num_tokens for prefix in prefixes]
    except UserError as error:
        raise UserError(
            f"{name} has {len(prefixes)} files, whose sizes share out its weight: {error}"
        ) from None
    return [count / sum(tokens) for count in tokens]
