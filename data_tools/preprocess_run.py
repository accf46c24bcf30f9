"""One run of `preprocess`: from its options to a finished prefix, over parts that a kill leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_tools.bad_lines import BadLimits, BadLines
from data_tools.chat_encoding import ChatOptions
from data_tools.columns import ColumnMap
from data_tools.encoding import (
    EncodeJob,
    EncodeSettings,
    TokenOptions,
    make_encoder,
    part_layout,
)
from data_tools.inputs import InputFile, cut_into_units, describe_inputs, list_inputs, mark_inputs
from data_tools.joining import join
from data_tools.notes import add_notes
from data_tools.origins import write_origins
from data_tools.outputs import claim, recipe_of, token_output, tokenizer_inputs
from data_tools.parts import Marker, PartLayout, PartsFolder, parts_path, read_plan
from data_tools.pipes import spool_pipes
from data_tools.progress import Progress
from data_tools.readers import ReadOptions
from data_tools.records import shape_of
from data_tools.selection import Selection, choose
from data_tools.templates import load_template
from data_tools.workers import run_units
from fastmix_mega import __version__
from fastmix_mega.data.indexed_manifest import Manifest
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError


@dataclass(frozen=True)
class ChatRequest:
    """How conversations are read and written."""

    template: str = "plain"
    """`plain`, `raw`, `hf`, or a file."""
    record: str = "auto"
    """The shape of conversations, where a file's first row shall not decide."""
    mapping: ColumnMap = ()
    """Which columns are taken for which fields."""
    train_on: str = "all"
    """Which turns count: `all`, or the `last`."""


@dataclass(frozen=True)
class RunOptions:
    """What does not decide the tokens of a prefix."""

    workers: int = 1
    fresh: bool = False
    """Throw away what an unfinished run left."""
    overwrite: bool = False
    """Replace finished files of another run."""
    allow_copies: bool = False
    """Read files of the same content."""
    origins: bool = False
    """Write where each document came from."""
    pipe_kind: str = "jsonl"
    """What standard input holds."""
    quiet: bool = True
    """Show no progress."""


@dataclass(frozen=True)
class Options:
    """How a prefix is made; all but `bad` and `run` decide what is in it."""

    read: ReadOptions = field(default_factory=ReadOptions)
    tokens: TokenOptions = field(default_factory=TokenOptions)
    chat: ChatRequest | None = None
    """None for text."""
    selection: Selection = field(default_factory=Selection)
    task: tuple[int, int] = (1, 1)
    """This share, from 1, of how many."""
    bad: BadLimits = field(default_factory=BadLimits)
    run: RunOptions = field(default_factory=RunOptions)


def preprocess(
    inputs: Sequence[str | Path],
    tokenizer_path: Path,
    output_prefix: Path,
    options: Options | None = None,
    list_file: Path | None = None,
) -> tuple[int, int]:
    """Tokenize inputs in order into one prefix.

    Args:
        inputs: files, globs, folders of Hugging Face datasets, `-` for standard input.
        tokenizer_path: a sentencepiece model or a tokenizer.json.
        output_prefix: without .bin/.idx.
        options: all the rest; by default those of `Options`.
        list_file: names further inputs, one a line.

    Returns:
        Documents and tokens written.

    Raises:
        UserError: for a missing file, a broken tokenizer, too many bad lines, or an output that
            would replace an input or a file that is not ours.
        ToolError: if a worker dies.
    """
    options = options or Options()
    with spool_pipes(output_prefix.parent, options.run.pipe_kind) as pipes:
        files = list_inputs(inputs, list_file, pipes, options.run.allow_copies)
        run = _Run(files, tokenizer_path, output_prefix, options)
        given = [] if list_file is None else [list_file]
        with run.claim_outputs(given):
            made = run.make()
    return made.documents, made.tokens


class _Run:
    """Everything about one run that is known before a document is read."""

    def __init__(
        self, files: list[InputFile], tokenizer_path: Path, prefix: Path, options: Options
    ) -> None:
        self.files, self.prefix, self.options = files, prefix, options
        self.tokenizer_path = tokenizer_path
        self.tokenizer = Tokenizer(tokenizer_path, options.tokens.eod)
        if options.tokens.bos and self.tokenizer.bos is None:
            raise UserError(f"--bos: {tokenizer_path} names no token that starts a document")
        _require_possible(options)
        chat = _chat_options(files, options)
        self.settings = EncodeSettings(options.read, options.tokens, chat, options.selection)
        self.template = (
            None
            if chat is None
            else load_template(chat.template, self.tokenizer, chat.special_text).name
        )
        self.layout: PartLayout = part_layout(self.tokenizer, self.settings)
        self.units = cut_into_units(files, options.read.text_unit)
        self.wanted = _share(len(self.units), options.task)
        self.plan = self._plan()
        self.recipe = recipe_of(**{**self.plan, "inputs": mark_inputs(files)})

    def _plan(self) -> dict[str, Any]:
        chat = self.settings.chat
        chats: dict[str, Any] = {}
        if chat is not None:
            chats = {
                "template": self.template,
                "records": list(chat.shapes),
                "mapping": [list(pair) for pair in chat.mapping],
                "train_on": chat.train_on,
            }
        return {
            "format": 2,
            "inputs": describe_inputs(self.files),
            "tokenizer": self.tokenizer.sha256,
            "reading": asdict(self.settings.read),
            "tokens": {**asdict(self.options.tokens), "eod": self.tokenizer.eod},
            "selection": asdict(self.options.selection),
            "task": list(self.options.task),
            **chats,
        }

    def claim_outputs(self, list_files: Sequence[Path]) -> Any:
        """Hold the output's lock; nothing that is in use or not ours is written."""
        folder = parts_path(self.prefix)
        is_ours = recipe_of(plan=read_plan(self.prefix)) == recipe_of(plan=self.plan)
        begun = [self.recipe] if is_ours else []
        output = token_output(self.prefix, self.recipe, folder, begun)
        template = [] if self.options.chat is None else [self.options.chat.template]
        read = [file.path for file in self.files]
        beside = tokenizer_inputs(self.tokenizer_path)
        return claim([output], [*read, *list_files, *template, *beside], self.options.run.overwrite)

    def make(self) -> Manifest:
        """Encode every unit that is missing, and join them."""
        options = self.options
        self.prefix.parent.mkdir(parents=True, exist_ok=True)
        parts = PartsFolder(self.prefix, self.plan, options.run.fresh)
        bad = BadLines(self.files, self.units, self.wanted, options.bad)
        markers = self._encode(parts, bad)
        ordered, suffix = [markers[number] for number in self.wanted], "part"
        if options.selection.max_tokens is not None:
            ordered = choose(parts, ordered, self.layout, options.selection.max_tokens)
            suffix = "chosen"
        if not any(marker.documents for marker in ordered):
            self._allow_nothing(parts)
        bad.write(Path(f"{self.prefix}.bad.jsonl"))
        paths = [(marker, parts.part(marker.unit, suffix)) for marker in ordered]
        if options.run.origins:
            write_origins(self.prefix, (self.files, self.units), paths, self.layout)
        else:
            Path(f"{self.prefix}.origins.parquet").unlink(missing_ok=True)
        made = join(
            self.prefix,
            self.layout.dtype,
            parts.pieces(ordered, self.layout, suffix),
            self._manifest(ordered, bad),
            masked=self.layout.masked,
            template=self.template,
        )
        parts.remove()
        return made

    def _encode(self, parts: PartsFolder, bad: BadLines) -> dict[int, Marker]:
        """The markers of all units; the parts that are missing are made."""
        job = EncodeJob(
            self.files,
            self.units,
            parts.path,
            self.tokenizer_path,
            self.settings,
            self.options.bad.max_bad,
        )
        markers = parts.finished(len(self.units), self.layout)
        weights = [self.units[number].weight for number in self.wanted]
        progress = Progress(sum(weights), self.options.run.quiet)
        for number in self.wanted:
            if number in markers:
                progress.skip(self.units[number].weight)
                bad.add(markers[number])
        missing = [number for number in self.wanted if number not in markers]
        workers = self.options.run.workers
        try:
            for marker in run_units(make_encoder, job, missing, workers, progress.add):
                markers[marker.unit] = marker
                progress.add(tokens=marker.tokens, bad=len(marker.counts.problems))
                bad.add(marker)
        finally:
            progress.close()
        return markers

    def _allow_nothing(self, parts: PartsFolder) -> None:
        if self.options.bad.allow_empty or self.options.task != (1, 1):
            return
        parts.remove()
        names = ", ".join(file.shown for file in self.files[:3])
        more = f" and {len(self.files) - 3} more" if len(self.files) > 3 else ""
        raise UserError(
            f"{names}{more}: no document to write; --allow-empty makes a prefix without any"
        )

    def _manifest(self, markers: Sequence[Marker], bad: BadLines) -> dict[str, Any]:
        chat, options = self.settings.chat, self.options
        made_by: dict[str, Any] = {
            "program": f"fastmix-mega {__version__}",
            "recipe": self.recipe,
            "inputs": [Path(file.shown).name for file in self.files],
        }
        if chat is not None:
            made_by["records"] = list(chat.shapes)
        else:
            keys = options.read.text_keys
            made_by["text_key"] = keys[0] if len(keys) == 1 else list(keys)
        made_by["backend"] = options.tokens.backend
        made_by["text_bytes"] = sum(marker.counts.text_bytes for marker in markers)
        made_by["bad_lines"] = bad.total
        if bad.total:
            made_by["bad_lines_by_file"] = bad.by_file()
        made_by["blank_lines"] = sum(marker.counts.blank for marker in markers)
        made_by["empty_files"] = self._empty_files(markers)
        notes = add_notes(marker.counts.notes for marker in markers)
        if notes:
            made_by["notes"] = notes
        if not options.selection.is_all:
            left_out = sum(marker.counts.left_out for marker in markers)
            made_by["selection"] = {**asdict(options.selection), "left_out": left_out}
        if options.task != (1, 1):
            made_by["task"] = list(options.task)
        return {
            "tokenizer_sha256": self.tokenizer.sha256,
            "vocab_size": self.tokenizer.vocab_size,
            "eod": self.tokenizer.eod,
            "bos": self.tokenizer.bos if options.tokens.bos else None,
            "made_by": made_by,
        }

    def _empty_files(self, markers: Sequence[Marker]) -> list[str]:
        """Inputs of which nothing at all was read; of a share of a run none is known."""
        if self.options.task != (1, 1):
            return []
        read = {
            self.units[marker.unit].file
            for marker in markers
            if marker.counts.lines > marker.counts.blank
        }
        return [file.shown for place, file in enumerate(self.files) if place not in read]


def _require_possible(options: Options) -> None:
    if options.selection.max_tokens is not None and options.task != (1, 1):
        raise UserError("--max-tokens counts over all shares; leave out --task, or use --sample")


def _share(count: int, task: tuple[int, int]) -> range:
    """The units of one task: neighbours, so that the tasks' results in order are the whole."""
    number, tasks = task
    return range(count * (number - 1) // tasks, count * number // tasks)


def _chat_options(files: Sequence[InputFile], options: Options) -> ChatOptions | None:
    if options.chat is None:
        return None
    if options.tokens.backend != "library":
        backend = options.tokens.backend
        raise UserError(f"--backend {backend} is for text; leave it out with --mode sft")
    if options.chat.record == "auto":
        shapes = [shape_of(file, options.read, options.chat.mapping) for file in files]
    else:
        text = next((file.shown for file in files if file.kind == "text"), None)
        if text is not None:
            raise UserError(f"{text} is plain text; conversations come as JSONL or Parquet")
        shapes = [options.chat.record for _ in files]
    chat, special = options.chat, options.tokens.special_text
    return ChatOptions(chat.template, tuple(shapes), chat.mapping, chat.train_on, special)
