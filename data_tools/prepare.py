"""From raw text to everything that a search reads, in one command.

    python -m data_tools.prepare configs/corpora_demo.yaml --output data/demo

builds the corpora, trains the tokenizer and indexes every part. What is finished is not done again;
an interrupted run can be started again without harm. Afterwards the folder holds

    tokenizer.model, sources/, targets/, judge/, heldout/ (token files), text/ (JSONL)

and `prepared`: what it was made from, and its parts. Only files that `made_by_fastmix.json` lists
are replaced or removed.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
from collections.abc import Sequence
from pathlib import Path

import data_tools
from data_tools.build_corpora import (
    CorporaConfig,
    build_corpora,
    corpora_inputs,
    corpora_texts,
    load_corpora_config,
)
from data_tools.commands import run_command, tool_parser
from data_tools.ledger import Ledger, folder_output
from data_tools.outputs import claim
from data_tools.preprocess_run import Options, RunOptions, preprocess
from data_tools.texts import FilesCorpus, is_installed, list_files
from data_tools.train_tokenizer import Training, train_tokenizer
from fastmix_mega.data.indexed_manifest import manifest_path
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError
from fastmix_mega.files import write_atomic


def prepare(config_path: Path, output: Path, overwrite: bool = False) -> None:
    """Make the folder, unless it is whole and the same configuration, code and files made it.

    Raises:
        UserError: for a mistake in the configuration, or a file in the folder that is not ours;
            `overwrite` replaces such a file, but no input.
    """
    config = load_corpora_config(config_path)
    fingerprint = _fingerprint(config, config_path)
    if _is_whole(output, fingerprint):
        print(f"{output} is ready (delete it to build it anew)")
        return
    texts = corpora_texts(config, output)
    tokenizer, finished = output / "tokenizer.model", output / "prepared"
    prefixes = [output / path.parent.name / path.stem for path in texts]
    ledger = Ledger(output)
    written = folder_output(ledger, "prepared", [*texts, tokenizer, finished], prefixes)
    with claim([written], [config_path, *corpora_inputs(config, config_path.parent)], overwrite):
        manifests = [Path(manifest_path(prefix)) for prefix in prefixes]
        ledger.add([*texts, tokenizer, finished, *manifests])
        finished.unlink(missing_ok=True)
        print("reading text, dropping copies ...", flush=True)
        build_corpora(config, output, config_path.parent)
        print("training the tokenizer ...", flush=True)
        sources = [output / "text" / "sources" / f"{c.name}.jsonl" for c in config.sources]
        # The documents lie in random order: the start of each file is a sample.
        training = Training(config.vocab_size, per_source=400_000, spread=False)
        train_tokenizer(sources, tokenizer, training, overwrite=True)
        print(f"{'':>10}  {'documents':>9}  {'tokens':>9}")
        settings = Options(run=RunOptions(fresh=True, overwrite=True))
        parts = []
        for path, prefix in zip(texts, prefixes, strict=True):
            documents, tokens = preprocess([path], tokenizer, prefix, settings)
            name = path.parent.name
            print(f"{path.stem:>10}  {documents:>9,}  {tokens:>9,}  {name}", flush=True)
            parts.append(f"{name}/{path.stem}")
        write_atomic(finished, "\n".join([fingerprint, *parts]) + "\n")


def _is_whole(output: Path, fingerprint: str) -> bool:
    """Whether `prepared` names this fingerprint and every part of it opens, by one tokenizer."""
    try:
        made_from, *parts = (output / "prepared").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ValueError):
        return False
    if made_from != fingerprint:
        return False
    try:
        sha256 = Tokenizer(output / "tokenizer.model").sha256
        manifests = [IndexedTokens(output / part).manifest for part in parts]
    except UserError:
        return False
    return all(manifest and manifest.tokenizer_sha256 == sha256 for manifest in manifests)


def _fingerprint(config: CorporaConfig, config_path: Path) -> str:
    """What the result depends on, but for the installed text itself.

    A user's own files count by name, size and time of change. Installed text does not: a new
    package in the environment is no reason to change a tokenizer that runs depend on.
    """
    digest = hashlib.sha256(config_path.read_bytes())
    for path in sorted(Path(data_tools.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    digest.update(platform.python_version().encode())
    for corpus in (*config.sources, *config.targets):
        if isinstance(corpus, FilesCorpus) and not is_installed(corpus.root):
            for name, path in list_files(corpus, config_path.parent):
                status = path.stat()
                digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = tool_parser("prepare", __doc__ or "")
    parser.add_argument("config", type=Path, help="YAML that names the corpora")
    parser.add_argument("--output", type=Path, required=True, help="folder for the result")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files in the folder that are not ours"
    )

    def work(options: argparse.Namespace) -> None:
        prepare(options.config, options.output, options.overwrite)

    return run_command(parser, work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
