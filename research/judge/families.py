"""Make the families' corpora: one tokenizer and one set of token files for each configuration.

    python -m research.judge.families --output data/judge [python debian]

reads `configs/NAME.yaml`, splits real text into sources, targets, judges and spare documents (none
is in two of them), derives the text that only looks like other text, and writes below OUTPUT/NAME
what `data_tools.prepare` would, and for every family a configuration of the product, FAMILY.yaml.
What is finished is not done again. `--proxy ten_million` writes FAMILY_ten_million.yaml: the same
text, and the larger model of configs/ten_million.yaml.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from research.judge import derived, product

CONFIGS = Path(__file__).parent / "configs"
LEAST_TOKENS = 400_000
"""Of a source that is drawn from a law, so that nothing repeats."""
TEXT_FOLDERS = ("sources", "targets", "judge")
PROXY = "proxy"
"""What is trained on every family, of configs/NAME.yaml."""


def make(name: str, output: Path, proxy: str = PROXY) -> list[Path]:
    """The configurations of the families of configs/NAME.yaml, their files made."""
    given = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    folder = output / name
    finished = folder / "made.json"
    if not finished.is_file() or json.loads(finished.read_text()) != given:
        _make_text(given, folder)
        _make_tokens(given, folder)
        finished.write_text(json.dumps(given))
    return [
        _write_family(family, parts, folder, proxy) for family, parts in given["families"].items()
    ]


def _make_text(given: dict[str, Any], folder: Path) -> None:
    print(f"{folder}: reading text, dropping copies", flush=True)
    product.build_text(given["corpora"], folder, CONFIGS)
    for corpus in given["corpora"]["targets"]:
        path = folder / "text" / "targets" / f"{corpus['name']}.jsonl"
        documents = _read(path)
        random.Random(corpus["name"]).shuffle(documents)
        spare = round(given["spare"] * len(documents))
        _write(folder / "text" / "spare" / path.name, documents[:spare])
        _write(path, documents[spare:])
    for entry in given["derived"]:
        if entry["kind"] == "ngrams":
            continue
        dice = random.Random(entry["name"])
        documents = _read(folder / "text" / f"{entry['of']}.jsonl")
        made = _derive_text(entry, documents, dice)
        if not entry.get("target"):
            _write(folder / "text" / "sources" / f"{entry['name']}.jsonl", made)
            continue
        half = len(made) // 2
        _write(folder / "text" / "targets" / f"{entry['name']}.jsonl", made[:half])
        _write(folder / "text" / "judge" / f"{entry['name']}.jsonl", made[half:])


def _derive_text(entry: dict[str, Any], documents: list[str], dice: random.Random) -> list[str]:
    if entry["kind"] == "sentences":
        return derived.shuffled_sentences(documents, dice)
    if entry["kind"] == "permuted":
        return [derived.permuted_words(text, entry["share"], dice) for text in documents]
    if entry["kind"] == "repeated":
        return derived.repeated_documents(documents, entry["share"], entry["times"], dice)
    if entry["kind"] == "answers":
        return derived.question_pairs(documents, entry["swapped"], dice)
    assert entry["kind"] == "lookup", entry
    count = 500 if entry.get("target") else 3000
    return derived.lookup_documents(documents, entry["permuted"], count, dice)


def _make_tokens(given: dict[str, Any], folder: Path) -> None:
    """Tokenizer of the real sources' text, every text's tokens, and what n-gram laws draw."""
    real = [corpus["name"] for corpus in given["corpora"]["sources"]]
    text = folder / "text"
    tokenizer = folder / "tokenizer.model"
    product.train_tokenizer(
        [text / "sources" / f"{name}.jsonl" for name in real],
        tokenizer,
        given["corpora"]["vocab_size"],
    )
    for part in (*TEXT_FOLDERS, "spare"):
        for path in sorted((text / part).glob("*.jsonl")):
            documents, tokens = product.index_text(path, tokenizer, folder / part / path.stem)
            print(f"{part:>8} {path.stem:>20} {documents:>7,} {tokens:>10,}", flush=True)
    for entry in given["derived"]:
        if entry["kind"] != "ngrams":
            continue
        documents_of = product.read_documents(folder / entry["of"])
        dice = np.random.default_rng(zlib.crc32(entry["name"].encode()))
        total = max(LEAST_TOKENS, sum(map(len, documents_of)))
        made = derived.ngram_documents(documents_of, entry["order"], min(total, 700_000), dice)
        product.write_documents(folder / "sources" / entry["name"], made, tokenizer)
        print(f" sources {entry['name']:>20} {len(made):>7,} {sum(map(len, made)):>10,}")


def _write_family(family: str, parts: dict[str, list[str]], folder: Path, name: str) -> Path:
    def entries(kind: str, names: Sequence[str]) -> list[dict[str, str]]:
        return [{"name": name, "prefix": str((folder / kind / name).absolute())} for name in names]

    family = family if name == PROXY else f"{family}_{name}"
    proxy = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    config = {
        "run_dir": str(folder.absolute() / "runs" / family),
        "tokenizer": str((folder / "tokenizer.model").absolute()),
        "sources": entries("sources", parts["sources"]),
        "targets": entries("targets", parts["targets"]),
        **proxy,
    }
    config["evaluation"] = {**proxy["evaluation"], "sets": entries("judge", parts["targets"])}
    path = folder / f"{family}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def _read(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def _write(path: Path, documents: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (
        json.dumps({"id": f"{path.stem}/{number}", "text": text}) + "\n"
        for number, text in enumerate(documents)
    )
    path.write_text("".join(lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=["python"], help="of configs/NAME.yaml")
    parser.add_argument("--output", type=Path, default=Path("data/judge"))
    parser.add_argument("--proxy", default=PROXY, help="what is trained, of configs/PROXY.yaml")
    options = parser.parse_args()
    for name in options.names:
        packages = Path("data/quality/packages")
        if name == "debian" and not packages.is_dir():
            command = [sys.executable, "-m", "research.quality.packages", "--output"]
            subprocess.run([*command, str(packages)], check=True)
        for path in make(name, options.output, options.proxy):
            print(path)


if __name__ == "__main__":
    main()
