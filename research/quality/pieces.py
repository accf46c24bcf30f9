"""Cut the sources of a prepared family into pieces: the same texts in many sources.

    python -m research.quality.pieces data/quality/languages --output data/quality/languages_many

Every source is cut by its documents' names in order into parts of about as many characters each, so
that pieces differ as folders do; a source that is too small for that stays whole. Targets, judge
sets and tokenizer stay those of the family, so that losses of both can be compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import orjson

from data_tools.build_corpora import write_jsonl
from data_tools.preprocess_run import Options, RunOptions, preprocess
from data_tools.texts import Document
from fastmix_mega.errors import UserError

PIECES = 6
LEAST = 500_000
"""Characters of a source that is cut."""


def cut(documents: Sequence[Document], count: int) -> list[list[Document]]:
    """Contiguous parts by name, each of about the same number of characters.

    A document belongs to the part in which its middle lies, so that a part is empty only where one
    document is longer than a part.
    """
    ordered = sorted(documents)
    total = sum(len(text) for _, text in ordered)
    parts: list[list[Document]] = [[] for _ in range(count)]
    before = 0
    for name, text in ordered:
        parts[min(count - 1, (2 * before + len(text)) * count // (2 * total))].append((name, text))
        before += len(text)
    return parts


def cut_family(family: Path, output: Path) -> list[tuple[str, int]]:
    """Write the pieces' text and token files below `output`; what is there is made anew.

    Returns:
        The pieces' names and tokens.

    Raises:
        UserError: if the family is not prepared.
    """
    sources = sorted((family / "text" / "sources").glob("*.jsonl"))
    if not sources or not (family / "prepared").is_file():
        raise UserError(f"{family} is not prepared (make quality-corpora)")
    made = []
    for source in sources:
        documents = [(line["id"], line["text"]) for line in map(orjson.loads, source.open("rb"))]
        large = sum(len(text) for _, text in documents) >= LEAST
        parts = cut(documents, PIECES if large else 1)
        for number, part in enumerate(parts, 1):
            name = f"{source.stem}_{number}" if large else source.stem
            text = output / "text" / "sources" / f"{name}.jsonl"
            text.parent.mkdir(parents=True, exist_ok=True)
            write_jsonl(text, part)
            prefix = output / "sources" / name
            _, tokens = preprocess(
                [text],
                family / "tokenizer.model",
                prefix,
                Options(run=RunOptions(fresh=True, overwrite=True)),
            )
            made.append((name, tokens))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("family", type=Path, help="folder that data_tools.prepare made")
    parser.add_argument("--output", type=Path, required=True, help="folder for the pieces")
    options = parser.parse_args()
    for name, tokens in cut_family(options.family, options.output):
        print(f"{name:>12}  {tokens:>9,}")


if __name__ == "__main__":
    main()
