"""Rules about the files that a blend leads to."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from fastmix_mega.audit.case import INDEXED, Case, Finding, Leaf
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.overlap import document_hashes, shared_documents
from fastmix_mega.errors import UserError

REPEATS_ON_PURPOSE = ("axolotl", "trl", "llama-factory", "ms-swift", "megatron-bridge-sft")
"""Formats in which naming a data set twice is how it is read twice."""
MAPS_PER_FILE = 2
"""One of .bin and one of .idx."""
OTHER_MAPS = 1500
"""Of a training process: three times what torch and megatron-core take without CUDA (516)."""
OTHER_FILES = 100
"""The same takes 57; numpy keeps one open for every map."""
MANY_PREFIXES = 400
"""From about 590 data sets a parallel file system refused maps (Megatron-Bridge, issue 3968)."""
SHARED_DOCUMENTS = 0.001
"""Share of a target's documents that may also stand in a source (headers, licences)."""


def missing(case: Case) -> Iterator[Finding]:
    """Prefixes that do not open, folders that are not there."""
    for name, reason in case.broken.items():
        yield Finding("fails", "files", f"{name}: {reason}", "correct the path, or make the files")
    if case.format in INDEXED:
        return
    for leaf in case.leaves:
        path = leaf.part.path
        if not path or "://" in path or not (os.path.isabs(path) or path.startswith(".")):
            continue
        plain = path.split("*", 1)[0] if "*" in path else path
        there = os.path.dirname(plain) if "*" in path else plain
        if not (os.path.exists(there) or os.path.exists(f"{there}.bin")):
            yield Finding("fails", "files", f"{leaf.name}: {path} is not there", "correct the path")


def twice(case: Case) -> Iterator[Finding]:
    """The same leaf under two entries."""
    by_leaf: dict[tuple[str, str], list[Leaf]] = defaultdict(list)
    for leaf in case.leaves:
        if leaf.part.path:
            by_leaf[_place(leaf), leaf.detail].append(leaf)
    for (place, _), group in by_leaf.items():
        if len(group) > 1:
            yield _twice(case, group, f"{place} stands {len(group)} times in the blend")
    by_content: dict[str, list[Leaf]] = defaultdict(list)
    for leaf in case.leaves:
        manifest = leaf.file.manifest if leaf.file is not None else None
        if manifest is not None:
            by_content[manifest.content_sha256].append(leaf)
    for group in by_content.values():
        if len({_place(leaf) for leaf in group}) > 1:
            names = ", ".join(leaf.name for leaf in group)
            yield _twice(case, group, f"{names} hold the same tokens (SHA-256)")


def too_many(case: Case) -> Iterator[Finding]:
    """More maps or open files than a process may have."""
    if case.format not in INDEXED:
        return
    count = len(case.leaves)
    splits = 1
    if case.format == "megatron-split-json":
        others = [case.content.get(split) or [] for split in ("valid", "test")]
        count += sum(len(other) // 2 for other in others)
    elif case.format in ("megatron", "megatron-bridge"):
        # One prefix is opened for every split that has a share; two is usual.
        splits = 2
    maps = count * splits * MAPS_PER_FILE
    for what, needed, limit, how in (
        ("memory maps", maps + OTHER_MAPS, case.run.max_maps, "sysctl vm.max_map_count"),
        ("open files", maps + OTHER_FILES, case.run.open_files, "ulimit -n"),
    ):
        if needed > limit:
            yield Finding(
                "fails",
                "too many files",
                f"{count} prefixes need about {needed:,} {what} in every process, {limit:,} are "
                f"allowed ({how})",
                f"raise {how}, merge the files (fastmix data merge), or read without maps "
                "(mmap_bin_files: false)",
            )
            return
    if count * splits > MANY_PREFIXES:
        yield Finding(
            "warning",
            "too many files",
            f"{count} prefixes are {maps:,} maps; parallel file systems have refused from about "
            "1,200",
            "merge the files (fastmix data merge), or read without maps (mmap_bin_files: false)",
        )


def tokenizers(case: Case) -> Iterator[Finding]:
    """Token files that were made with different tokenizers."""
    by_sha: dict[str, list[str]] = defaultdict(list)
    for leaf in case.leaves:
        manifest = leaf.file.manifest if leaf.file is not None else None
        if manifest is not None and manifest.tokenizer_sha256 is not None:
            by_sha[manifest.tokenizer_sha256].append(leaf.name)
    if len(by_sha) > 1:
        groups = "; ".join(f"{sha[:8]}: {', '.join(names)}" for sha, names in by_sha.items())
        yield Finding(
            "wrong",
            "tokenizers",
            f"the sources were made with {len(by_sha)} tokenizers ({groups})",
            "preprocess them again with one",
        )
    types = {leaf.file.dtype.name for leaf in case.leaves if leaf.file is not None}
    if len(types) > 1 and len(by_sha) <= 1:
        yield Finding(
            "warning",
            "tokenizers",
            f"the sources hold tokens of different types ({', '.join(sorted(types))}), as "
            "vocabularies of different size have",
            "make sure that one tokenizer made them all",
        )


def targets(case: Case) -> Iterator[Finding]:
    """Targets whose documents stand in a source."""
    for prefix in case.run.targets:
        target = IndexedTokens(prefix)
        hashes = np.unique(document_hashes([target]))
        for leaf in case.leaves:
            if leaf.file is None:
                continue
            if os.path.realpath(leaf.part.path) == os.path.realpath(prefix):
                shared = len(hashes)
            else:
                shared = shared_documents(document_hashes([leaf.file]), hashes)
            if len(hashes) and shared / len(hashes) > SHARED_DOCUMENTS:
                yield Finding(
                    "wrong",
                    "targets",
                    f"{shared:,} of {len(hashes):,} documents of the target {prefix} are in "
                    f"{leaf.name}",
                    "take them out of the source (fastmix data dedup), or choose another target",
                )


def unreadable_targets(run_targets: list[str]) -> None:
    """Raises: UserError for a target that does not open, which is the user's mistake."""
    for prefix in run_targets:
        try:
            IndexedTokens(prefix)
        except UserError as error:
            raise UserError(f"--target {prefix}: {error}") from None


def schedule(case: Case) -> Iterator[Finding]:
    """A stage that begins after the run's end."""
    begins = case.blend.begins_tokens
    if begins is not None and begins >= case.run.budget:
        yield Finding(
            "wrong",
            "schedule",
            f"stage {case.blend.stage} begins at {begins:,} tokens, after the run's end",
            "move it, or raise the budget",
        )


def domains(case: Case) -> Iterator[Finding]:
    """Automodel: domains must be the blend's, and losses of like size."""
    if case.format != "automodel":
        return
    given = case.content["domain_mixture"]["domains"]
    dataset = case.content.get("dataset") or {}
    paths = dataset.get("paths")
    if isinstance(paths, dict):
        paths = paths.get("train")
    if isinstance(paths, list) and [str(p) for p in paths[1::2]] != [d.get("path") for d in given]:
        yield Finding(
            "fails",
            "domains",
            "the domains' paths are not those of dataset.paths in the same order",
            "write both in one order, as fastmix export --to automodel does",
        )
    sampling = np.array([float(d["sampling_weight"]) for d in given])
    factors = np.array(case.shares) / (sampling / sampling.sum())
    if factors.max() > 10:
        worst = str(given[int(factors.argmax())]["name"])
        yield Finding(
            "warning",
            "domains",
            f"the loss of {worst} counts {factors.max():.3g} times: rare samples with large "
            "gradients are noise",
            "sample nearer to the objective's weights",
        )


def _place(leaf: Leaf) -> str:
    path = leaf.part.path
    return path if re.match(r"[a-z0-9+]+://", path) else os.path.realpath(path)


def _twice(case: Case, group: list[Leaf], text: str) -> Finding:
    total = sum(leaf.part.weight for leaf in group) / sum(leaf.part.weight for leaf in case.leaves)
    if case.format in REPEATS_ON_PURPOSE:
        return Finding("note", "twice", f"{text}, so it is read that often", "nothing, if meant")
    return Finding(
        "wrong",
        "twice",
        f"{text}, with {total:.2%} in all: its copies are read independently, in Energon in the "
        "very same order",
        "give it one entry with the weights' sum",
    )


RULES = (missing, twice, too_many, tokenizers, targets, schedule, domains)
