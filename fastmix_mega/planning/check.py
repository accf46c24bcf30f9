"""Find every mistake of the user's before any GPU time is spent: `fastmix check CONFIG`.

All findings are collected and shown at once. Only headers, manifests and small samples are read,
so that the check takes seconds whatever the size of the corpora.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fastmix_mega.config.schema import Config
from fastmix_mega.config.sections import SourceConfig
from fastmix_mega.data.choice_source import ChoiceSource
from fastmix_mega.data.conversations import ConversationSource
from fastmix_mega.data.repetition import repetition_notes
from fastmix_mega.data.rows import Source
from fastmix_mega.data.source import open_source
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError
from fastmix_mega.methods.base import Method, OpenedData
from fastmix_mega.methods.fastmix import epochs_by_source
from fastmix_mega.methods.registry import method_of
from fastmix_mega.mixture.constraints.apply import epochs_at
from fastmix_mega.model import kernels
from fastmix_mega.model.presets import ModelShape, resolve_shape
from fastmix_mega.planning.data_checks import (
    mixtures_of_other_tokenizers,
    overlaps,
    run_folder_and_data,
    same_files,
)
from fastmix_mega.planning.folder_checks import (
    changed_layout,
    changed_schedule,
    clash,
    unknown_names,
)
from fastmix_mega.planning.rules import as_yaml, nearest_layout, problems
from fastmix_mega.training.identity import differences
from fastmix_mega.training.run import Verb


@dataclass
class Findings:
    mistakes: list[str] = field(default_factory=list)
    """Each keeps the run from starting."""
    warnings: list[str] = field(default_factory=list)
    """Each is worth a thought."""
    facts: list[str] = field(default_factory=list)


def require_no_mistakes(findings: Findings) -> None:
    """Raises: UserError with all mistakes."""
    if findings.mistakes:
        raise UserError("\n".join(["the configuration cannot run:", *findings.mistakes]))


def check(
    config: Config, processes: int, mode: Verb = "search", allowed: Collection[str] = ()
) -> Findings:
    """Look for everything that could go wrong.

    Args:
        config: already valid by its schema.
        processes: how many the run will have.
        mode: `search` or `train`; each looks only at what it needs.
        allowed: names of differences to the run in the folder that the user has said yes to.
    """
    found = Findings()
    method = method_of(config, mode)
    # Runs in folders below the search's own are trainings.
    trains_as = mode if method.own_run else "train"
    steps = [
        _run_folder(method, allowed, found),
        _inputs(method, found),
        _start(config, found),
        _search(method, found),
    ]
    if method.trains:
        steps += [
            _warm_up(config),
            _layout(method.config, processes, trains_as, found),
            _kernels(method.config, trains_as, found),
        ]
    for step in steps:
        found.mistakes.extend(f"  {message}" for message in step)
    return found


def mode_of(config: Config) -> Verb:
    """`search` or `train`, whichever a configuration is made for.

    One that names targets is a search's, whatever else it holds; without any, one that gives a
    mixture or stages is a training run's.
    """
    trains = bool(config.model_fields_set & {"mixture", "stages"})
    return "train" if trains and not config.targets else "search"


def describe(config: Config, findings: Findings, mode: str = "search") -> str:
    """What `fastmix check` prints."""
    lines = list(findings.facts)
    lines += [f"warning: {warning}" for warning in findings.warnings]
    if findings.mistakes:
        lines += [f"{len(findings.mistakes)} mistake(s):", *findings.mistakes]
    else:
        lines.append(f"ready: fastmix {mode}, run folder {config.run_dir}")
    return "\n".join(lines)


def _warm_up(config: Config) -> Iterator[str]:
    train = config.train
    if train.schedule.warmup >= train.steps:
        yield (
            f"train.schedule.warmup ({train.schedule.warmup}) must be below train.steps "
            f"({train.steps})"
        )


def _run_folder(method: Method, allowed: Collection[str], found: Findings) -> Iterator[str]:
    config = method.given
    directory = Path(config.run_dir)
    try:
        above = (directory, *directory.parents, Path("."))
        existing = next(path for path in above if path.exists())
    except OSError as error:
        yield f"run_dir: {str(directory)[:80]}: {error.strerror}"
        return
    if not existing.is_dir():
        yield f"run_dir: {existing} is a file; name a folder"
    elif not os.access(existing, os.W_OK):
        yield f"run_dir: cannot write to {existing}"
    else:
        try:
            changed = differences(config, method.verb, method.own_run, method.free_sections)
        except OSError as error:
            yield f"run_dir: {error.filename}: {error.strerror}"
            return
        yield from unknown_names(type(config), allowed, changed)
        refused = [each for each in changed if not (each.can_be_allowed and each.name in allowed)]
        found.warnings += [f"allowed: {each.text}" for each in changed if each not in refused]
        if refused:
            yield clash(directory, refused)
        elif changed:
            yield from changed_schedule(config, found.warnings)


def _inputs(method: Method, found: Findings) -> Iterator[str]:
    config = method.given
    tokenizer: Tokenizer | None = None
    try:
        tokenizer = Tokenizer(config.tokenizer)
        shape = resolve_shape(config.model, tokenizer.vocab_size)
        found.facts.append(_describe_model(shape))
    except UserError as error:
        yield str(error)
    opened: dict[str, Source] = {}
    groups: list[tuple[str, list[SourceConfig]]] = [("sources", list(config.sources))]
    if method.verb == "search":
        groups.append(("targets", list(config.targets)))
    groups.append(("evaluation.sets", list(config.evaluation.sets)))
    for group, entries in groups:
        for entry in entries:
            where = f"{group}: {entry.name}"
            try:
                source = open_source(
                    entry.name,
                    entry.prefixes,
                    config.train.seq_length,
                    config.seed,
                    packed=config.train.packing,
                )
            except UserError as error:
                yield f"{where}: {error}"
                continue
            opened[where] = source
            if source.choices > 1 and group == "sources":
                yield (
                    f"{where}: multiple-choice questions can be a target or an evaluation set, "
                    "never a source: their wrong choices would be trained on"
                )
            if isinstance(source, ChoiceSource) and source.left_out:
                found.warnings.append(
                    f"{where}: {source.left_out} questions with a choice of more than "
                    f"{config.train.seq_length} tokens are left out"
                )
            if tokenizer is not None:
                yield from _same_tokenizer(where, source, tokenizer)
    yield from _mixtures(method, opened, tokenizer, found)
    _conversations(opened, found)
    yield from _enough(config, opened, found)
    yield from same_files(config.sources)
    entries = [entry for _, group in groups for entry in group]
    yield from run_folder_and_data(config.run_dir, entries, found.warnings)
    yield from overlaps(opened, found.warnings)


def _start(config: Config, found: Findings) -> Iterator[str]:
    """What the run starts from; nothing where it goes on from its own checkpoint."""
    if config.init_from is None:
        return
    from fastmix_mega.checkpoint.store import checkpoint_steps
    from fastmix_mega.weights.init_from import mismatches, open_start

    if checkpoint_steps(Path(config.run_dir) / "checkpoints"):
        found.facts.append(
            "init_from: not read, since the run folder has a checkpoint to go on from"
        )
        return
    try:
        start = open_start(config.init_from)
    except UserError as error:
        yield f"init_from: {error}"
        return
    # What is wrong with the tokenizer and the sizes is reported where the model is looked at.
    with suppress(UserError):
        yield from mismatches(config, start, Tokenizer(config.tokenizer))
    found.facts.append(f"starts from the weights in {start.identity()['path']}")


def _conversations(opened: dict[str, Source], found: Findings) -> None:
    """How conversations fit the sequence length, and whether one template wrote them all."""
    chats = {w: each for w, each in opened.items() if isinstance(each, ConversationSource)}
    for where, source in chats.items():
        cut = source.fit.truncated or source.fit.left_out
        (found.warnings if cut else found.facts).append(f"{where}: {source.fit.describe()}")
    files = [file for source in chats.values() for file in source.files]
    templates = {
        None if file.manifest is None or file.manifest.mask is None else file.manifest.mask.template
        for file in files
    }
    if len(templates) > 1:
        found.warnings.append(
            "conversations were written by several chat templates: "
            + ", ".join(sorted(str(name)[:12] for name in templates))
        )


def _describe_model(shape: ModelShape) -> str:
    return (
        f"model: {shape.parameters / 1e6:.1f}M parameters ({shape.layers} layers, hidden size "
        f"{shape.hidden_size}, vocabulary {shape.vocab_size})"
    )


def _same_tokenizer(where: str, source: Source, tokenizer: Tokenizer) -> Iterator[str]:
    for file in source.files:
        made_with = file.manifest.tokenizer_sha256 if file.manifest else None
        if made_with is not None and made_with != tokenizer.sha256:
            yield (
                f"{where}: {file.prefix} was made with another tokenizer ({made_with[:12]}... "
                f"instead of {tokenizer.sha256[:12]}...); preprocess it again"
            )


def _mixtures(
    method: Method, opened: dict[str, Source], tokenizer: Tokenizer | None, found: Findings
) -> Iterator[str]:
    config = method.given
    given = [opened.get(f"sources: {name}") for name in config.source_names]
    sources = [source for source in given if source is not None]
    if len(sources) < len(given) or tokenizer is None:
        return  # Their mistakes are reported already.
    targets = [opened.get(f"targets: {target.name}") for target in config.targets]
    known = [target for target in targets if target is not None]
    data = OpenedData(sources, known, tokenizer.sha256)
    try:
        preview = method.preview(data)
    except UserError as error:
        yield str(error)
        return
    found.facts += preview.facts
    found.warnings += preview.warnings
    named: dict[str, object] = {"search.initial": config.search.initial}
    if method.verb == "train":
        named = {"mixture": config.mixture}
        named |= {f"stages: {stage.name}": stage.mixture for stage in config.stages}
    found.warnings += mixtures_of_other_tokenizers(named, tokenizer.sha256)
    if method.verb == "search":
        facts, warnings = repetition_notes(config, [source.num_samples for source in sources])
        found.facts += facts
        found.warnings += warnings
    yield from preview.mistakes
    if method.verb == "search" and (preview.weights <= 0).any():
        yield (
            "the first mixture of the search (search.initial or search.reuse, within the "
            "constraints) has a weight of 0, which could never recover; give it a small one, or "
            "drop the source"
        )
    epochs = epochs_at(preview.weights, data.tokens, config.train.tokens)
    shown = epochs_by_source(config.source_names, epochs)
    found.facts.append(f"epochs in this run, {preview.when}: {shown}")


def _enough(config: Config, opened: dict[str, Source], found: Findings) -> Iterator[str]:
    budget = config.train.tokens
    fair_share = budget / len(config.sources)
    for where, source in opened.items():
        if source.num_samples == 0:
            yield (
                f"{where}: {source.num_tokens} tokens are not one sequence of "
                f"{config.train.seq_length}; lower train.seq_length or give it more text"
            )
        elif where.startswith("sources") and source.num_samples <= config.evaluation.holdout:
            yield (
                f"{where}: evaluation.holdout keeps {config.evaluation.holdout} of its "
                f"{source.num_samples} sequences; lower it"
            )
        elif where.startswith("sources") and source.num_tokens < fair_share / 4:
            found.warnings.append(
                f"{where}: {source.num_tokens:,} tokens are read "
                f"{fair_share / source.num_tokens:.1f} times at a uniform share of the run's "
                f"{budget:,} tokens; repeated text teaches less than new text"
            )
    found.facts.append(
        f"data: {len(config.sources)} sources, {len(config.targets)} target(s); the run reads "
        f"{budget:,} tokens"
    )


def _unused(config: Config, found: Findings) -> None:
    """Keys of a training run, which a search does not look at."""
    for key in ("mixture", "stages"):
        if key in config.model_fields_set:
            found.warnings.append(f"{key}: is for fastmix train; a search does not look at it")


def _search(method: Method, found: Findings) -> Iterator[str]:
    config = method.given
    if method.verb == "search":
        _unused(config, found)
    elif config.phases:
        found.warnings.append("phases: is for fastmix search; a training run does not look at it")
    if method.verb == "search" and method.needs_targets and not config.targets:
        yield f"targets: a search needs at least one (method: {config.method})"
    else:
        yield from method.problems()


def _layout(config: Config, processes: int, mode: str, found: Findings) -> Iterator[str]:
    shape: ModelShape | None = None
    # What is wrong with them is reported where the model is looked at.
    with suppress(UserError):
        shape = resolve_shape(config.model, Tokenizer(config.tokenizer).vocab_size)
    parallel = config.parallel
    mistakes = problems(parallel, config, shape, processes, mode)
    yield from mistakes
    if mistakes:
        nearest = None if shape is None else nearest_layout(config, shape, processes, mode)
        if nearest is not None:
            yield f"the nearest layout that works on {processes} process(es): {as_yaml(nearest)}"
        return
    model = parallel.tensor * parallel.pipeline * parallel.context
    micro_batches = config.train.global_batch * model // (config.train.micro_batch * processes)
    if parallel.pipeline > 1:
        idle = parallel.pipeline - 1
        bubble = idle / (idle + micro_batches * parallel.interleave)
        found.facts.append(
            f"layout: {as_yaml(parallel)}; {micro_batches} micro-batches a step leave the pipeline "
            f"idle for {bubble:.0%} of the time"
        )
    yield from changed_layout(config, processes // model, found.facts)


def _kernels(config: Config, mode: str, found: Findings) -> Iterator[str]:
    mistakes = kernels.problems(config, mode)
    yield from mistakes
    if not mistakes:
        found.facts.append(f"kernels on this machine: {kernels.choose(config, mode)}")
