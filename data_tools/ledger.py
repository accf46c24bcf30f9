"""Which files of a folder our tools have written: `<folder>/made_by_fastmix.json`.

Tools that fill a folder replace and remove what is listed there, also if it was changed or damaged
since, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from data_tools.outputs import Output, token_output
from fastmix_mega.data.indexed_manifest import forget_manifest, manifest_path
from fastmix_mega.errors import UserError
from fastmix_mega.files import write_json

NAME = "made_by_fastmix.json"
FORMAT = "fastmix-folder/1"


class Ledger:
    """The list of one folder.

    Args:
        folder: need not exist.

    Raises:
        UserError: if a file that is no such list has its name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / NAME
        self._files = self._read()

    def _read(self) -> set[str]:
        try:
            content = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return set(_of_earlier_versions(self.folder))
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise UserError(f"{self.path} is no list of ours; move it, or name another folder")
        return set(content.get("files", []))

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    @property
    def listed(self) -> list[Path]:
        return [self.folder / name for name in sorted(self._files)]

    def is_ours(self, path: Path) -> bool:
        """Whether the file is listed."""
        return self._name(path) in self._files

    def add(self, paths: Iterable[Path]) -> None:
        """List files, before they are written: a run that is killed must know them again."""
        self._files |= {self._name(path) for path in paths}
        self._write()

    def _write(self) -> None:
        write_json(self.path, {"format": FORMAT, "files": sorted(self._files)})

    def remove_others(self, kept: Iterable[Path]) -> None:
        """Remove the texts that are ours and not to be kept, and the token files made of them."""
        wanted = {self._name(path) for path in kept}
        for name in sorted(self._files):
            text = self.folder / name
            if text.parts[-3:-2] != ("text",) or text.suffix != ".jsonl" or name in wanted:
                continue
            prefix = self.folder / text.parent.name / text.stem
            manifest = Path(manifest_path(prefix))
            if self.is_ours(manifest):
                _remove_tokens(prefix)
            text.unlink(missing_ok=True)
            self._files -= {name, self._name(manifest)}
        self._write()


def folder_output(
    ledger: Ledger, name: str, files: Iterable[Path], prefixes: Iterable[Path] = ()
) -> Output:
    """What a tool writes into a folder.

    Args:
        ledger: of the folder.
        name: of the lock.
        files: to be written.
        prefixes: of token files to be written.
    """
    # What the list names may be removed: it may be no input either.
    written = list(dict.fromkeys([*files, ledger.path, *ledger.listed]))
    ours = {path for path in written if ledger.is_ours(path)} | {ledger.path}
    for prefix in prefixes:
        tokens = token_output(prefix, "").files
        written += [path for path in tokens if path not in written]
        if ledger.is_ours(Path(manifest_path(prefix))):
            ours |= set(tokens)
    return Output(ledger.folder / name, tuple(written), ours=frozenset(ours))


def _remove_tokens(prefix: Path) -> None:
    forget_manifest(prefix, masked=False)
    for kind in ("idx", "bin", "bad.jsonl", "origins.parquet"):
        Path(f"{prefix}.{kind}").unlink(missing_ok=True)


def _of_earlier_versions(folder: Path) -> list[str]:
    """What `prepare` of an earlier version says that it wrote."""
    try:
        made_from, *parts = (folder / "prepared").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    if not re.fullmatch("[0-9a-f]{64}", made_from):
        return []
    texts = [f"text/{part}.jsonl" for part in parts]
    return ["prepared", "tokenizer.model", *texts, *map(manifest_path, parts)]
