"""From raw text to everything that a search reads, in one command.

    python -m data_tools.prepare configs/corpora_demo.yaml --output data/demo

builds the corpora, trains the tokenizer and indexes every part. What is finished is not done again;
an interrupted run can be started again without harm. Afterwards the folder holds

    tokenizer.model, sources/, targets/, judge/, heldout/ (token files), text/ (JSONL)
"""

from __future__ import annotations

import argparse
import hashlib
import platform
from collections.abc import Sequence
from pathlib import Path

import data_tools
from data_tools.build_corpora import build_corpora, load_corpora_config
from data_tools.commands import run_command, tool_parser
from data_tools.preprocess import preprocess
from data_tools.train_tokenizer import train_tokenizer
from fastmix_mega.data.indexed import IndexedTokens
from fastmix_mega.files import write_atomic

FOLDERS = ("sources", "heldout", "targets", "judge")


def prepare(config_path: Path, output: Path) -> None:
    """Make the folder, unless the same configuration and code already made it."""
    finished = output / "prepared"
    fingerprint = _fingerprint(config_path)
    if finished.is_file() and finished.read_text() == fingerprint:
        print(f"{output} is ready (delete it to build it anew)")
        return
    finished.unlink(missing_ok=True)
    config = load_corpora_config(config_path)
    print("reading text, dropping copies ...", flush=True)
    build_corpora(config, output, config_path.parent)
    texts = output / "text"
    sources = [texts / "sources" / f"{corpus.name}.jsonl" for corpus in config.sources]
    print("training the tokenizer ...", flush=True)
    tokenizer = output / "tokenizer.model"
    train_tokenizer(sources, config.vocab_size, 400_000, tokenizer)
    print(f"{'':>10}  {'documents':>9}  {'tokens':>9}")
    for folder in FOLDERS:
        for path in sorted((texts / folder).glob("*.jsonl")):
            documents, tokens = preprocess([path], tokenizer, output / folder / path.stem)
            print(f"{path.stem:>10}  {documents:>9,}  {tokens:>9,}  {folder}", flush=True)
            IndexedTokens(output / folder / path.stem)
    write_atomic(finished, fingerprint)


def _fingerprint(config_path: Path) -> str:
    """What the result depends on, but for the installed text itself."""
    digest = hashlib.sha256(config_path.read_bytes())
    for path in sorted(Path(data_tools.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    digest.update(platform.python_version().encode())
    return digest.hexdigest() + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = tool_parser("prepare", __doc__ or "")
    parser.add_argument("config", type=Path, help="YAML that names the corpora")
    parser.add_argument("--output", type=Path, required=True, help="folder for the result")

    def work(options: argparse.Namespace) -> None:
        load_corpora_config(options.config)
        prepare(options.config, options.output)

    return run_command(parser, work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
