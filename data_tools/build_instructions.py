"""Instruction data made of local text: sources, targets, and what mixtures are judged on.

    python -m data_tools.build_instructions configs/instructions_demo.yaml \\
        --tokenizer data/demo/tokenizer.model --output data/sft

reads every source that the YAML names, drops repeated questions (a target's question is in no
source), writes JSONL with `question` and `answer`, and indexes each file with its loss mask:

    text/sources/NAME.jsonl, sources/NAME   what a model may be trained on
    text/targets/NAME.jsonl, targets/NAME   what a search may look at
    text/judge/NAME.jsonl, judge/NAME       what no search ever sees
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import orjson
from pydantic import BaseModel, ConfigDict, Field

from data_tools.commands import run_command, tool_parser
from data_tools.instructions import (
    Instructions,
    Pair,
    WrongAnswers,
    files_of,
    read_pairs,
    wrong_pairs,
)
from data_tools.ledger import Ledger, folder_output
from data_tools.outputs import claim, tokenizer_inputs, write_if_changed
from data_tools.preprocess_run import ChatRequest, Options, RunOptions, preprocess
from data_tools.schema import read_schema
from data_tools.texts import is_installed, list_files
from fastmix_mega.data.indexed_manifest import manifest_path
from fastmix_mega.errors import UserError


class InstructionsConfig(BaseModel):
    """The YAML of `build_instructions`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: Annotated[list[Instructions], Field(min_length=1)]
    targets: list[Instructions] = []
    """No sources: half of their pairs are for the search, half for judging."""


def load_instructions_config(path: Path) -> InstructionsConfig:
    """Read and validate the YAML; UserError says what is wrong where."""
    config = read_schema(path, InstructionsConfig)
    names = [source.name for source in (*config.sources, *config.targets)]
    if len(set(names)) < len(names):
        raise UserError(f"{path}: every source and target needs a name of its own")
    real = {source.name for source in config.sources if not isinstance(source, WrongAnswers)}
    for source in config.sources:
        if not isinstance(source, WrongAnswers):
            continue
        unknown = {*source.questions, *source.answers} - real
        if unknown:
            raise UserError(f"{path}: {source.name}: {', '.join(sorted(unknown))} is no source")
    if any(isinstance(target, WrongAnswers) for target in config.targets):
        raise UserError(f"{path}: wrong answers can be a source, never a target")
    return config


def instructions_texts(config: InstructionsConfig, output: Path) -> list[Path]:
    """The JSONL files that `build_instructions` writes: targets, judges, sources."""
    targets = [target.name for target in config.targets]
    named = [(folder, name) for name in targets for folder in ("targets", "judge")]
    named += [("sources", source.name) for source in config.sources]
    return [output / "text" / folder / f"{name}.jsonl" for folder, name in named]


def build_instructions(
    config: InstructionsConfig,
    output: Path,
    base: Path,
    also_read: Sequence[Path] = (),
    overwrite: bool = False,
) -> list[Path]:
    """Write the JSONL files below `output`/text; returns them.

    Args:
        config: what to make.
        output: made if it is missing; each file appears whole.
        base: relative folders of the configuration start here.
        also_read: further files that must not be written, the configuration's own for example.
        overwrite: replace files that are not ours.

    Raises:
        UserError: for a source without pairs, or a file in the folder that is not ours.
    """
    ledger, texts = Ledger(output), instructions_texts(config, output)
    read = [*_files_read(config, base), *also_read]
    with claim([folder_output(ledger, "text", texts)], read, overwrite):
        parts = _all_pairs(config, base)
        for (_, name), pairs in parts.items():
            if not pairs:
                raise UserError(f"{name}: no pair of a question and an answer was found")
        ledger.add(texts)
        for path in texts:
            write_pairs(path, parts[path.parent.name, path.stem])
    return texts


def _files_read(config: InstructionsConfig, base: Path) -> list[Path]:
    """The user's files among what the sources read."""
    sources = [*config.sources, *config.targets]
    named = [files_of(source) for source in sources]
    return [
        path
        for files in named
        if files is not None and not is_installed(files.root)
        for _, path in list_files(files, base)
    ]


def _all_pairs(config: InstructionsConfig, base: Path) -> dict[tuple[str, str], list[Pair]]:
    """By folder and name."""
    asked: set[str] = set()
    parts: dict[tuple[str, str], list[Pair]] = {}
    # Targets come first: a question that a source shares with a target belongs to the target.
    for target in config.targets:
        pairs = _take(target, base, asked)
        half = len(pairs) // 2
        parts["targets", target.name], parts["judge", target.name] = pairs[:half], pairs[half:]
    for source in config.sources:
        if not isinstance(source, WrongAnswers):
            parts["sources", source.name] = _take(source, base, asked)
    for source in config.sources:
        if isinstance(source, WrongAnswers):
            names = (*source.questions, *source.answers)
            given = {name: parts["sources", name] for name in names}
            parts["sources", source.name] = list(wrong_pairs(source, given))
    return parts


def _take(source: Instructions, base: Path, asked: set[str]) -> list[Pair]:
    """Pairs whose question is new, until there are enough."""
    taken: list[Pair] = []
    for pair in read_pairs(source, base):
        if pair.question in asked:
            continue
        asked.add(pair.question)
        taken.append(pair)
        if len(taken) == source.max_pairs:
            break
    return taken


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    lines = [
        orjson.dumps({"id": pair.identifier, "question": pair.question, "answer": pair.answer})
        for pair in pairs
    ]
    write_if_changed(path, b"".join(line + b"\n" for line in lines))


def make_folder(config_path: Path, tokenizer: Path, output: Path, overwrite: bool = False) -> None:
    """Write the texts and index each, telling how large they are."""
    config = load_instructions_config(config_path)
    texts = instructions_texts(config, output)
    prefixes = [output / path.parent.name / path.stem for path in texts]
    manifests = [Path(manifest_path(prefix)) for prefix in prefixes]
    base = config_path.parent
    ledger = Ledger(output)
    read = [*tokenizer_inputs(tokenizer), *map(str, [config_path, *_files_read(config, base)])]
    with claim([folder_output(ledger, "instructions", texts, prefixes)], read, overwrite):
        ledger.add([*texts, *manifests])
        build_instructions(config, output, base, [config_path])
        print(f"{'':>10}  {'pairs':>9}  {'tokens':>9}")
        settings = Options(
            chat=ChatRequest(record="question"), run=RunOptions(fresh=True, overwrite=True)
        )
        for path, prefix in zip(texts, prefixes, strict=True):
            pairs, tokens = preprocess([path], tokenizer, prefix, settings)
            name = path.parent.name
            print(f"{path.stem:>10}  {pairs:>9,}  {tokens:>9,}  {name}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = tool_parser("build_instructions", __doc__ or "")
    parser.add_argument("config", type=Path, help="YAML that names the sources and targets")
    parser.add_argument("--tokenizer", type=Path, required=True, help="of the model to train")
    parser.add_argument("--output", type=Path, required=True, help="folder for the result")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files in the folder that are not ours"
    )

    def work(options: argparse.Namespace) -> None:
        make_folder(options.config, options.tokenizer, options.output, options.overwrite)

    return run_command(parser, work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
