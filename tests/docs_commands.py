"""The commands in the pages: found, and made runnable on tiny inputs."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import yaml

from tests.tiny import tiny_settings

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BEGINS = re.compile(r"(\$ )?(\.venv/bin/)?(fastmix |python -m |make |sbatch |\w+=\$\(sbatch )")
_SYNOPSIS = re.compile(r" \[")
"""Brackets around what may be left out: no command, but what its options are."""
_INLINE = re.compile(r"`((?:\.venv/bin/)?fastmix [^`]+)`")
_SYNOPSES = re.compile(r"^ {4}(fastmix .* \[.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Command:
    """One command of a page."""

    page: str
    text: str

    @property
    def words(self) -> list[str]:
        """As a shell splits them: `fastmix`, `python`, `make` or `sbatch` first."""
        shell = re.sub(r"^\w+=\$\((.*)\)$", r"\1", self.text)
        words = shlex.split(shell, comments=True)
        return [words[0].removeprefix(".venv/bin/"), *words[1:]]

    @property
    def fastmix(self) -> list[str] | None:
        """The words after `fastmix`; a data tool's module is the same as its verb."""
        words = self.words
        if words[:2] == ["python", "-m"] and words[2].startswith("data_tools."):
            return ["data", words[2].removeprefix("data_tools."), *words[3:]]
        return words[1:] if words[0] == "fastmix" else None

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


def commands_of(page: Path) -> list[Command]:
    """The commands in a page's blocks of code, with continued lines joined."""
    found: list[Command] = []
    fenced, joined = False, ""
    for line in page.read_text(encoding="utf-8").split("\n"):
        if line.strip().startswith("```"):
            fenced = not fenced
        elif joined:
            joined += f" {line.strip()}"
        elif (fenced or line.startswith("    ")) and _BEGINS.match(line.strip()):
            joined = line.strip().removeprefix("$ ")
        if joined.endswith("\\"):
            joined = joined.removesuffix("\\").rstrip()
        elif joined:
            if not _SYNOPSIS.search(joined):
                found.append(Command(page.name, joined))
            joined = ""
    return found


def mentions_in(page: Path) -> list[list[str]]:
    """The words of `fastmix ...` within sentences, which may leave out what is not their point."""
    text = page.read_text(encoding="utf-8")
    found = [*_INLINE.findall(text), *_SYNOPSES.findall(text)]
    return [re.sub(r"[\[\]]", "", each).split()[1:] for each in found]


def write_sandbox(folder: Path, corpora: Path) -> None:
    """The files that the pages' commands name, as small as they can be.

    Args:
        folder: an empty one, which will be the current folder of the commands.
        corpora: those of `tests.tiny`.
    """
    lines = [{"text": line} for line in Path(np.__file__).read_text().split("\n") if line]

    def jsonl(name: str) -> bytes:
        """No two files hold the same bytes."""
        own = [{"text": f"This is {name}."}, *lines]
        return "".join(json.dumps(line) + "\n" for line in own).encode()

    for name in ("web", "code", "a", "b"):
        (folder / f"{name}.jsonl").write_bytes(jsonl(name))
    for name in ("a", "web"):
        (folder / name).mkdir()
        path = str(folder / name / "part.jsonl.zst")
        with pyarrow.CompressedOutputStream(path, "zstd") as file:
            file.write(jsonl(f"{name}/part"))
    texts = pyarrow.table({"text": [line["text"] for line in lines]})
    pyarrow.parquet.write_table(texts, folder / "code.parquet")
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "the array"}]
    (folder / "chats.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
    quiz = {"question": "which?", "choices": ["this", "that"], "answer": 0}
    (folder / "quiz.jsonl").write_text(json.dumps(quiz) + "\n")
    (folder / "limits.yaml").write_text("max_epochs: 1_000_000_000\n")
    shutil.copy(corpora / "tokenizer.model", folder)

    shutil.copytree(corpora, folder / "tokens")
    shutil.copytree(ROOT / "configs", folder / "configs")
    settings = tiny_settings(Path("tokens"), Path("runs/demo"))
    settings["evaluation"] = {"sequences": 8}
    sets = [{"name": each["name"], "prefix": each["prefix"]} for each in settings["targets"]]
    settings["evaluation"] |= {"sets": sets}
    settings["search"] |= {"answer": "surface"}  # Though the step is given.
    (folder / "configs" / "demo.yaml").write_text(yaml.safe_dump(settings))
    (folder / "my.yaml").write_text(yaml.safe_dump(settings | {"run_dir": "runs/my"}))
