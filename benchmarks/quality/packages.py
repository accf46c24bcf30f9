"""Unpack the Debian packages of the judge's second family; nothing is installed.

    python -m benchmarks.quality.packages --output data/quality/packages

Needs `apt-get` and `dpkg-deb`. Compressed files are opened, dictionaries cut into files of some
entries, and the packages' versions written down beside them.
"""

from __future__ import annotations

import argparse
import gzip
import re
import shutil
import subprocess
import tempfile
import zlib
from pathlib import Path

PACKAGES = (
    *("dict-foldoc", "dict-jargon", "fortunes", "fortunes-de", "git-doc", "libruby3.1"),
    *("manpages-de", "manpages-dev", "perl-doc", "perl-modules-5.36", "sqlite3-doc", "tcllib"),
)
PIECE = 8_000
"""Characters of a dictionary in one file, at least."""


def unpack(output: Path) -> None:
    """Download and unpack, unless that is done."""
    finished = output / "versions.txt"
    if finished.is_file():
        print(f"{output} is ready (delete it to fetch it anew)")
        return
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as downloads:
        subprocess.run(["apt-get", "download", "-qq", *PACKAGES], cwd=downloads, check=True)
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
        for number, piece in enumerate(pieces(path.read_text("utf-8", "replace"))):
            path.with_suffix(f".{number:04}.txt").write_text(piece, "utf-8")
        path.unlink()
    finished.write_text("\n".join(names) + "\n")


def open_compressed(path: Path) -> None:
    try:
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, zlib.error):
        print(f"left out, not readable: {path}")
    path.unlink()


def pieces(dictionary: str) -> list[str]:
    """Cut before headwords (lines that are not indented), into pieces of about `PIECE`."""
    found, current, size = [], [], 0
    for entry in re.split(r"\n\n(?=\S)", dictionary):
        current.append(entry)
        size += len(entry)
        if size >= PIECE:
            found.append("\n\n".join(current))
            current, size = [], 0
    return [*found, "\n\n".join(current)] if current else found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("data/quality/packages"))
    unpack(parser.parse_args().output)


if __name__ == "__main__":
    main()
