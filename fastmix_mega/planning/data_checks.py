"""What `fastmix check` finds by comparing token files with each other and with the run folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fastmix_mega.config.sections import SourceConfig
from fastmix_mega.data.overlap import document_hashes, shared_by_pairs, shared_documents
from fastmix_mega.data.remote import is_remote
from fastmix_mega.data.rows import Source
from fastmix_mega.errors import UserError
from fastmix_mega.mixture.file import mixture_path, read_mixture

NOTEWORTHY = 0.01
"""Share of a source's documents that another must hold too to be worth a word."""
SHOWN_PAIRS = 5


def same_files(sources: Sequence[SourceConfig]) -> Iterator[str]:
    """One file in two sources: its text would have two weights, which nothing can tell apart."""
    owner: dict[str, str] = {}
    for source in sources:
        for prefix in source.prefixes:
            place = prefix if is_remote(prefix) else os.path.realpath(prefix)
            other = owner.setdefault(place, source.name)
            if other != source.name:
                yield f"sources: {other} and {source.name} have the same file, {prefix}; keep one"


def mixtures_of_other_tokenizers(given: Mapping[str, object], sha256: str) -> Iterator[str]:
    """A mixture belongs to the tokenizer that it was found with: its shares are of its tokens.

    Args:
        given: by configuration key, mixtures as a configuration gives them.
        sha256: of the run's tokenizer.

    Yields:
        Warnings. Files that cannot be read are reported where they are used.
    """
    for key, mixture in given.items():
        if not isinstance(mixture, str) or not mixture_path(mixture).is_file():
            continue
        try:
            other = read_mixture(mixture_path(mixture)).tokenizer.get("sha256")
        except UserError:
            continue
        if other is not None and other != sha256:
            yield (
                f"{key}: {mixture} was found with another tokenizer ({str(other)[:12]}... instead "
                f"of {sha256[:12]}...): its shares may be wrong here"
            )


def overlaps(opened: Mapping[str, Source], warnings: list[str]) -> Iterator[str]:
    """Documents that stand on two sides: a target inside a source would make it look good.

    Args:
        opened: by `GROUP: NAME`, with the groups sources, targets and evaluation.sets.
        warnings: is given what is doubtful: sources that share text, and held-out text that is a
            target's.

    Yields:
        Mistakes: held-out or target text that a source holds too.
    """
    hashes = {where: document_hashes(each.files) for where, each in opened.items()}
    sources = [where for where in opened if where.startswith("sources: ")]
    targets = [where for where in opened if where.startswith("targets: ")]
    held_out = [where for where in opened if where.startswith("evaluation.sets: ")]
    for source in sources:
        for where in (*targets, *held_out):
            count = shared_documents(hashes[source], hashes[where])
            if count:
                yield (
                    f"{where}: {count} of its documents are also in source {_name(source)}; remove "
                    "them from one side (`fastmix data dedup` takes them out of a source)"
                )
    for where in held_out:
        for target in targets:
            count = shared_documents(hashes[target], hashes[where])
            if count:
                warnings.append(
                    f"{where}: {count} of its documents are also in target {_name(target)}: its "
                    "loss is that of text on which the search was steered, and not held out"
                )

    shared = shared_by_pairs([hashes[source] for source in sources])
    found = []
    for a, first in enumerate(sources):
        for b in range(a):
            of = min(shared[a, a], shared[b, b])
            if of and shared[a, b] >= NOTEWORTHY * of:
                found.append((int(shared[a, b]), int(of), sources[b], first))
    found.sort(reverse=True)
    for count, of, first, second in found[:SHOWN_PAIRS]:
        warnings.append(
            f"sources {_name(first)} and {_name(second)} share {count:,} of the {of:,} documents "
            f"of the smaller one that were looked at ({count / of:.1%}): such text has the weight "
            "of both, and is read that much more often"
        )
    if len(found) > SHOWN_PAIRS:
        warnings.append(f"{len(found) - SHOWN_PAIRS} more pairs of sources share documents")


def run_folder_and_data(
    run_dir: str, entries: Sequence[SourceConfig], warnings: list[str]
) -> Iterator[str]:
    """A run folder is a folder of its own.

    Args:
        run_dir: the run folder.
        entries: all whose files are read.
        warnings: is given what is doubtful.

    Yields:
        Mistakes: the run would write beside token files.
    """
    here, folder = Path.cwd().resolve(), Path(run_dir).resolve()
    prefixes = [p for entry in entries for p in entry.prefixes if not is_remote(p)]
    for data in sorted({Path(prefix).resolve().parent for prefix in prefixes}):
        if folder == data:
            yield f"run_dir: {run_dir} is the folder of token files; name a folder of its own"
        elif data in folder.parents and data != here and data not in here.parents:
            warnings.append(
                f"run_dir: {run_dir} lies inside {data}, a folder of token files; what cleans up "
                "one may take the other"
            )
            return


def _name(where: str) -> str:
    return where.partition(": ")[2]
