"""Run every data tool over folders whose names clash, and look that no file was changed.

    python -m tests.stress.clashing_names --runs 5000 --seed 0

A run makes a folder of files that are called as a tool's outputs are: corpora, token files, links
and hard links to them, and files of a user's own. A tool is called with inputs and outputs of these
names, spelled in many ways, twice in a row. It must end with exit code 0 or 2 without a stack
trace, and every file that was there before must hold the same bytes under the same name. What the
first call made, the second one must leave as it is. Exit code 1 if anything was changed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_tools.train_tokenizer import Training, train_tokenizer
from fastmix_mega.data.indexed_writer import IndexedWriter
from fastmix_mega.data.tokenizer import Tokenizer

STEMS = ("web", "code", "web_train", "a")
"""The first parts of names."""
ENDINGS = (
    *(".json", ".jsonl", ".txt", ".csv", ".jsonl.gz", ".model", ".yaml"),
    *(".bin", ".idx", ".manifest.json", ".mask.bin", ".mask.idx", ".bad.jsonl", ".lock"),
    *(".bin.partial", ".idx.partial", ".origins.parquet", ".jsonl.removed.jsonl", ".jsonl.lock"),
)
INSIDE = (
    *("tokenizer.model", "prepared", "made_by_fastmix.json", "prepared.lock", "text.lock"),
    *("text/sources/a.jsonl", "text/targets/average.jsonl", "text/heldout/a.jsonl"),
    *("text/sources/mine.jsonl", "sources/a.bin", "sources/a.manifest.json", "judge/average.idx"),
    *(
        "web.parts/plan.json",
        "web.parts/00000000.part",
        "web.parts/mine.txt",
        "web.parts/web.jsonl",
    ),
)
"""Names that folders of `prepare`, and of unfinished work, have."""
WEIGHTS = {
    "preprocess": 34,
    "merge": 16,
    "split": 10,
    "preprocess_choices": 9,
    "dedup": 12,
    "train_tokenizer": 5,
    "build_corpora": 4,
    "build_instructions": 3,
    "prepare": 2,
    "inspect": 2,
    "verify": 3,
}


@dataclass(frozen=True)
class Material:
    """Contents to make folders of."""

    folder: Path
    tokenizer: Path

    @classmethod
    def make(cls, folder: Path) -> Material:
        rows = [json.dumps({"text": f"the {n} words of text number {n * n}"}) for n in range(60)]
        (folder / "corpus.jsonl").write_text("\n".join(rows) + "\n")
        tokenizer = folder / "t.model"
        train_tokenizer([folder / "corpus.jsonl"], tokenizer, Training(290, 20_000))
        loaded = Tokenizer(tokenizer)
        fields = {
            "tokenizer_sha256": loaded.sha256,
            "vocab_size": loaded.vocab_size,
            "eod": loaded.eod,
        }
        for name, first, masked in (("plain", 5, False), ("other", 20, False), ("chat", 5, True)):
            with IndexedWriter(folder / name, np.dtype(np.uint16), fields, masked) as writer:
                for number in range(5):
                    writer.add_document([number + first, loaded.eod], [0, 1] if masked else None)
        return cls(folder, tokenizer)


class Folder:
    """One folder of clashing names, and commands over it."""

    def __init__(self, material: Material, here: Path, seed: int) -> None:
        self.material, self.here, self.dice = material, here, random.Random(seed)
        self.serial = seed
        # Half of the folders are so sparse that most commands find nothing in their way.
        for _ in range(self.dice.choice((1, 2, 3, 8, 12))):
            self._add(self.dice.choice(STEMS) + self.dice.choice(ENDINGS))
        for _ in range(self.dice.choice((0, 0, 1, 3))):
            self._add(self.dice.choice(INSIDE))
        for stem in self.dice.sample(STEMS, self.dice.randint(0, 2)):
            self._add_tokens(stem, self.dice.choice(("plain", "other", "chat")), 0.95)
        if self.dice.random() < 0.5:
            self._add_tokens("good", "plain", 1.0)
            self._add_tokens("more", "other", 1.0)
        question = {"question": f"q{seed}", "choices": ["x", "y"], "answer": 0}
        (here / "quiz.jsonl").write_text(json.dumps(question) + "\n")
        (here / f"good{seed}.jsonl").write_text(self._corpus())
        (here / "beside").mkdir(exist_ok=True)
        self._add_configuration()

    def _corpus(self) -> str:
        """Text that no other file of the folder has."""
        self.serial += 1
        lines = [
            {"text": f"line {n} of {self.serial} {self.dice.random()}", "id": n}
            for n in range(self.dice.randint(1, 4))
        ]
        return "".join(json.dumps(line) + "\n" for line in lines)

    def _content(self) -> bytes:
        self.serial += 1
        question = {"question": f"q{self.serial}", "choices": ["x", "y"], "answer": 0}
        manifest = (self.material.folder / "plain.manifest.json").read_bytes()
        return self.dice.choice(
            (
                *(self._corpus().encode(),) * 4,
                (json.dumps(question) + "\n").encode(),
                json.dumps([json.loads(line) for line in self._corpus().splitlines()]).encode(),
                json.dumps({"prompt": f"p{self.serial}", "completion": "c"}).encode() + b"\n",
                b'{"my": "settings"}\n',
                b'{"file":"x.jsonl","line":1,"reason":"not JSON"}\n',
                b"text\nhello %d\n" % self.serial,
                manifest,
                self.material.tokenizer.read_bytes(),
                b"",
                self.dice.randbytes(20),
            )
        )

    def _add(self, name: str) -> None:
        path = self.here / name
        if os.path.lexists(path):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        others = [each for each in self.files() if each.is_file()]
        kind = self.dice.random()
        if others and kind < 0.15:
            path.symlink_to(os.path.relpath(self.dice.choice(others), path.parent))
        elif others and kind < 0.3:
            os.link(self.dice.choice(others), path, follow_symlinks=True)
        elif kind < 0.33:
            path.symlink_to("nowhere")
        elif kind < 0.36:
            path.mkdir()
        else:
            path.write_bytes(self._content())

    def _add_tokens(self, stem: str, name: str, share: float) -> None:
        """A whole prefix, as far as its names are free, or a share of its files."""
        old = self.dice.random() < 0.3
        for path in sorted(self.material.folder.glob(f"{name}.*")):
            ending = path.name.removeprefix(name)
            target = self.here / (stem + (".json" if old and "manifest" in ending else ending))
            if not os.path.lexists(target) and self.dice.random() < share:
                shutil.copy(path, target)

    def _add_configuration(self) -> None:
        documents = self.here / "documents"
        documents.mkdir()
        for number in range(5):
            words = " ".join(f"w{self.dice.randint(0, 10**6)}" for _ in range(60))
            code = f'def f{number}(x):\n    """{words}"""\n    return x\n'
            (documents / f"{number}.py").write_text(code)
        root = self.dice.choice(("documents", "documents", "."))
        corpus = {"name": "a", "kind": "files", "root": root, "patterns": ["**/*.py"]}
        config = {"vocab_size": 300, "min_document": 10, "sources": [corpus]}
        (self.here / "corpora.yaml").write_text(json.dumps(config))
        source = {"name": "a", "kind": "docstring_questions", "root": "documents"}
        sums = {"name": "mine", "kind": "arithmetic", "largest": 3}
        (self.here / "instructions.yaml").write_text(json.dumps({"sources": [sums, source][:1]}))

    def files(self) -> list[Path]:
        return sorted(path for path in self.here.rglob("*") if path.is_symlink() or path.is_file())

    def state(self) -> dict[str, str]:
        """Every file, by what it holds; every link also by where it points."""
        found = {}
        for path in self.files():
            content = f"-> {os.readlink(path)} " if path.is_symlink() else ""
            if path.is_file():
                content += hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(self.here))] = content
        return found

    def spell(self, name: str) -> str:
        """The same place in another spelling."""
        link = self.here / "beside" / "link"
        if self.dice.random() < 0.15:
            if not link.exists():
                link.symlink_to("..", target_is_directory=True)
            return f"beside/link/{name}"
        return self.dice.choice(
            (name, name, f"./{name}", f"beside/../{name}", str(self.here / name))
        )

    def inputs(self, most: int = 3) -> list[str]:
        names = [str(path.relative_to(self.here)) for path in self.files()]
        found = [self.spell(self.dice.choice(names)) for _ in range(self.dice.randint(1, most))]
        patterns = ("*.json", "*.jsonl", "web*", "*.txt", "*")
        readable = [n for n in names if n.endswith((".jsonl", ".json", ".txt"))]
        if readable and self.dice.random() < 0.8:
            found = [self.spell(self.dice.choice(readable))]
        return [self.dice.choice(patterns)] if self.dice.random() < 0.25 else found

    def prefix(self) -> str:
        return self.spell(self.dice.choice((*STEMS, "web.jsonl", "web.bin", "new/web", "free")))

    def tokenizer(self) -> str:
        inside = [str(path.relative_to(self.here)) for path in self.here.glob("*.model")]
        theirs = [self.spell(name) for name in inside]
        return self.dice.choice([*theirs, *[str(self.material.tokenizer)] * 3])

    def command(self, tool: str) -> list[str]:
        """Words for a tool; most of the inputs are of a kind that it reads."""
        text = ["--tokenizer", self.tokenizer(), "--output-prefix", self.prefix()]
        bad = ["--max-bad", "9", "--max-bad-share", "1"] if self.dice.random() < 0.6 else []
        output = self.spell(self.dice.choice((".", "new", "beside")))
        good = next(path.name for path in self.here.glob("good*.jsonl"))
        make: dict[str, Callable[[], list[str]]] = {
            "preprocess": lambda: [*self._mostly(good), *text, *bad, *self._preprocess_options()],
            "preprocess_choices": lambda: [*self._mostly("quiz.jsonl"), *text],
            "merge": lambda: [*self._prefixes(), "--output-prefix", self.prefix()],
            "split": lambda: [*self._prefixes()[:1], "--output-prefix", self.prefix()],
            "inspect": self._prefixes,
            "verify": lambda: [*self._prefixes(), "--deep"],
            "dedup": lambda: [
                *("--sources", *self._mostly(good), "--targets", *self._mostly(good)),
                *("--output", self.spell(self.dice.choice(STEMS) + ".jsonl"), *bad[:2]),
            ],
            "train_tokenizer": lambda: [
                *self._mostly(str(self.material.folder / "corpus.jsonl")),
                *("--vocab-size", "290", "--max-bad", "9", "--output"),
                self.spell(self.dice.choice(STEMS) + self.dice.choice((".model", ".jsonl"))),
            ],
            "build_corpora": lambda: ["corpora.yaml", "--output", output],
            "prepare": lambda: ["corpora.yaml", "--output", output],
            "build_instructions": lambda: [
                *("instructions.yaml", "--output", output),
                *("--tokenizer", self.tokenizer()),
            ],
        }
        return make[tool]()

    def _preprocess_options(self) -> list[str]:
        options = []
        for words in (["--origins"], ["--mode", "sft"], ["--fresh"], ["--sample", "0.5"]):
            options += words if self.dice.random() < 0.15 else []
        return options

    def _mostly(self, name: str) -> list[str]:
        return [self.spell(name)] if self.dice.random() < 0.6 else self.inputs()

    def _prefixes(self) -> list[str]:
        if (self.here / "good.idx").exists() and self.dice.random() < 0.7:
            return [self.spell("good"), self.spell("more")][: self.dice.randint(1, 2)]
        stems = sorted({path.name.split(".")[0] for path in self.here.glob("*.idx")})
        found = stems or ["web"]
        return [self.spell(self.dice.choice(found)) for _ in range(self.dice.randint(1, 2))]


def call(tool: str, words: list[str]) -> tuple[int, str]:
    """Exit code and messages of a tool in this process; -1 for an exception."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = importlib.import_module(f"data_tools.{tool}").main(words)
        except SystemExit as error:
            code = int(error.code or 0)
        except Exception:
            code = -1
            traceback.print_exc(file=said)
    return code, said.getvalue()


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Files that are gone or hold something else."""
    return [name for name, content in before.items() if after.get(name) != content]


def run_once(material: Material, seed: int) -> tuple[str, int, list[str]]:
    """One folder and one command: the tool, its exit code, and what went wrong."""
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        here = Path(name).resolve()
        os.chdir(here)
        try:
            folder = Folder(material, here, seed)
            (tool,) = folder.dice.choices(list(WEIGHTS), list(WEIGHTS.values()))
            words = folder.command(tool)
            before = folder.state()
            code, said = call(tool, words)
            first = folder.state()
            wrong = [f"changed: {each}" for each in differences(before, first)]
            if code not in (0, 2):
                wrong.append(f"exit code {code}: {said}")
            if code == 2 and len(first) > len(before):
                left = sorted(set(first) - set(before))
                # Finished units are kept for the next run, and the list of what is being made.
                kept = (".parts/", "made_by_fastmix.json", ".jsonl", ".model")
                wrong += [f"left: {each}" for each in left if not any(k in each for k in kept)]
            again, said_again = call(tool, words)
            if again != code and not (code == 0 and again == 2):
                wrong.append(f"exit code {code}, the second time {again}: {said_again}")
            wrong += [f"changed by the second run: {e}" for e in differences(first, folder.state())]
            if wrong:
                wrong.append(f"seed {seed}: {tool} {' '.join(words)}")
            return tool, code, wrong
        finally:
            os.chdir(home)


def campaign(runs: int, seed: int, report: Callable[[str], None]) -> list[str]:
    """Returns what went wrong in any of the runs."""
    counts: Counter[tuple[str, int]] = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        material = Material.make(Path(name))
        for number in range(runs):
            tool, code, found = run_once(material, seed + number)
            counts[tool, code] += 1
            wrong += found
            if found:
                report("\n".join(found))
            if (number + 1) % 500 == 0:
                report(f"{number + 1} runs, {len(wrong)} complaints")
    for (tool, code), count in sorted(counts.items()):
        report(f"{tool:20} exit code {code}: {count}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wrong = campaign(options.runs, options.seed, lambda text: print(text, flush=True))
    print(f"{options.runs} runs: {'no file was changed' if not wrong else 'see above'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
