r"""Unpack the Debian packages of the judge's second and third families; nothing is installed.

    python -m research.quality.packages --output data/quality/packages
    python -m research.quality.packages --family languages \
        --output data/quality/packages_languages

Needs `apt-get` and `dpkg-deb`. Compressed files are opened, dictionaries cut into files of some
entries, and the packages' versions written down beside them. Of the third family, collections of
sayings are cut too, and the FAQ into its questions.
"""

from __future__ import annotations

import argparse
import gzip
import re
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

PACKAGES = {
    "debian": (
        *("dict-foldoc", "dict-jargon", "fortunes", "fortunes-de", "git-doc", "libruby3.1"),
        *("manpages-de", "manpages-dev", "perl-doc", "perl-modules-5.36", "sqlite3-doc", "tcllib"),
    ),
    "languages": (
        *("cmake-data", "debian-faq", "dict-wn", "emacs-el", "fortunes-it", "fortunes-pl"),
        *("golang-1.19-src", "libjs-jquery-ui", "libjs-underscore", "linux-doc-6.1", "manpages-fr"),
        *("manpages-pl", "node-lodash", "postgresql-doc-15", "r-base-core"),
    ),
}
PIECE = 8_000
"""Characters of a dictionary in one file, at least."""


def unpack(family: str, output: Path) -> None:
    """Download and unpack a family's packages, unless that is done."""
    finished = output / "versions.txt"
    if finished.is_file():
        print(f"{output} is ready (delete it to fetch it anew)")
        return
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as downloads:
        subprocess.run(["apt-get", "download", "-qq", *PACKAGES[family]], cwd=downloads, check=True)
        archives = sorted(Path(downloads).glob("*.deb"))
        for archive in archives:
            subprocess.run(["dpkg-deb", "-x", str(archive), str(output)], check=True)
        names = [archive.name for archive in archives]
    # Links lead to files that are there anyway, or to other packages.
    for path in list(output.rglob("*")):
        if path.is_symlink():
            path.unlink()
    for path in [*output.rglob("*.gz"), *output.rglob("*.dz")]:
        open_compressed(path)
    for path in list(output.rglob("*.dict")):
        # WordNet has an entry a headword, without empty lines between them.
        boundary = r"\n(?=\S)" if path.stem == "wn" else r"\n\n(?=\S)"
        replace_by(path, pieces(path.read_text("utf-8", "replace"), boundary))
    if family == "languages":
        for path in list(output.glob("usr/share/games/fortunes/??/*")):
            if path.suffix != ".dat":
                replace_by(path, pieces(path.read_text("utf-8", "replace"), r"\n(?=%\n)", 4_000))
        for path in list(output.glob("usr/share/doc/debian/FAQ/*.txt")):
            replace_by(path, numbered_questions(path.read_text("utf-8")))
    finished.write_text("\n".join(names) + "\n")


def open_compressed(path: Path) -> None:
    try:
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, zlib.error):
        print(f"left out, not readable: {path}")
    path.unlink()


def replace_by(path: Path, texts: Sequence[str]) -> None:
    """Put files NAME.0000.txt, NAME.0001.txt, ... where the file NAME.* was."""
    for number, text in enumerate(texts):
        path.with_suffix(f".{number:04}.txt").write_text(text, "utf-8")
    path.unlink()


def pieces(text: str, boundary: str = r"\n\n(?=\S)", least: int = PIECE) -> list[str]:
    """Cut where a pattern (of line ends) says, into pieces of at least so many characters.

    The default is before a dictionary's headwords: lines that are not indented.
    """
    separator = "\n\n" if boundary.startswith(r"\n\n") else "\n"
    found, current, size = [], [], 0
    for entry in re.split(boundary, text):
        current.append(entry)
        size += len(entry)
        if size >= least:
            found.append(separator.join(current))
            current, size = [], 0
    return [*found, separator.join(current)] if current else found


def numbered_questions(text: str) -> list[str]:
    """The sections of a plain-text FAQ whose headings ("1.2. What is it?") ask something."""
    found = []
    boundary = re.compile(r"^(?:\d+(?:\.\d+)+\.\s|Chapter\s\d+\.|-{20,}$)", re.MULTILINE)
    for section in boundary.split(text):
        heading, _, body = section.partition("\n\n")
        question = " ".join(heading.split())
        # Some lines are indented by spaces that do not break.
        answer = re.sub(r"^[ \xa0]{4}", "", body, flags=re.MULTILINE).strip()
        if question.rstrip("!").endswith("?") and answer:
            found.append(f"Question: {question}\nAnswer: {answer}\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--family", choices=sorted(PACKAGES), default="debian")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    unpack(options.family, options.output)


if __name__ == "__main__":
    main()
