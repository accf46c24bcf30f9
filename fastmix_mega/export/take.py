"""`fastmix import`: a trainer's or a published mixture becomes mixture.json."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from fastmix_mega.errors import MISSHAPEN, UserError
from fastmix_mega.export.blend import Blend, Given
from fastmix_mega.export.formats import Format, reader_of
from fastmix_mega.export.plan import Part
from fastmix_mega.export.units import Size, to_token_shares
from fastmix_mega.mixture.file import MixtureFile, MixtureSource, versions
from fastmix_mega.output_file import ResultFile, require_output_file
from fastmix_mega.reading import read_limited


def import_mixture(
    path: str | Path,
    source_format: str,
    output: str | Path | ResultFile,
    stage: str | None = None,
    sizes: Mapping[str, Size] | None = None,
) -> list[str]:
    """Write a trainer's or a publication's mixture as mixture.json; returns what to tell.

    Args:
        path: the file.
        source_format: a name in `formats.FORMATS`.
        output: the mixture.json. Of a schedule with several stages, `NAME.STAGE.json` each.
        stage: take only this one of a schedule, into `output`.
        sizes: tokens and rows by the source's name or path, for numbers that are no shares of
            tokens.

    Raises:
        UserError: if the file is broken or its weights are no mixture.
    """
    form = reader_of(source_format)
    overwrite = isinstance(output, ResultFile) and output.overwrite
    output = require_output_file(output, [path])
    blends = read_blends(path, source_format)
    if stage is not None:
        blends = [_of_stage(blends, stage, path)]
    if len(blends) == 1:
        return _write(
            blends[0], form, source_format, path, ResultFile(output, overwrite), sizes or {}
        )
    lines = [f"{len(blends)} stages; each is a mixture of its own:"]
    places = []
    for blend in blends:
        slug = re.sub(r"[^A-Za-z0-9_.+-]+", "_", blend.stage).strip("_") or "stage"
        place = output.with_name(f"{output.stem}.{slug}{output.suffix}")
        if place in places:
            raise UserError(f"{path}: two stages would both be {place}; take one with --stage")
        places.append(place)
        begins = f"from {blend.begins_unit.removesuffix('s')} {blend.begins:,}"
        lines.append(f"{blend.stage} ({begins}): {place}")
        lines += _write(blend, form, source_format, path, ResultFile(place, overwrite), sizes or {})
    return [*lines, *_schedule(blends, places)]


def read_blends(path: str | Path, source_format: str) -> list[Blend]:
    """The blends of a file, checked to be finite and not negative. Raises: UserError."""
    form = reader_of(source_format)
    try:
        text = read_limited(path).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise UserError(f"cannot read {path}: {reason}") from None
    assert form.read is not None
    try:
        blends = form.read(Given(text, Path(path)))
    except MISSHAPEN as error:
        reason = str(error) if isinstance(error, UserError) else f"it is misshapen ({error!r:.200})"
        raise UserError(f"{path} is no {source_format} file: {reason}") from None
    for blend in blends:
        where = f"{path}{f', stage {blend.stage}' if blend.stage else ''}"
        weights = np.array([part.weight for part in blend.parts], np.float64)
        if not len(weights) or not np.isfinite(weights).all() or (weights < 0).any():
            raise UserError(f"{where}: weights must be finite and not negative")
        if not 0 < weights.sum() < np.inf:
            raise UserError(f"{where}: all weights are 0, or their sum is no number")
        if any("\0" in part.path for part in blend.parts):
            raise UserError(f"{where}: a path holds a zero byte")
    return blends


def names_of(parts: Sequence[Part]) -> list[str]:
    """Sources' own names, else the ends of their paths, as long as needed to tell them apart."""
    names = [part.source or Path(part.path).name or part.path for part in parts]
    names = [
        part.path.strip("/").replace("/", "_") if names.count(name) > 1 and part.path else name
        for name, part in zip(names, parts, strict=True)
    ]
    return [name if names.count(name) == 1 else f"{name}_{at}" for at, name in enumerate(names)]


def _of_stage(blends: Sequence[Blend], stage: str, path: str | Path) -> Blend:
    names = [blend.stage for blend in blends]
    if stage not in names:
        known = ", ".join(name for name in names if name) or "it has one mixture"
        raise UserError(f"{path} has no stage {stage!r}; its stages: {known}")
    return blends[names.index(stage)]


def _write(
    blend: Blend,
    form: Format,
    source_format: str,
    origin: str | Path,
    output: ResultFile,
    sizes: Mapping[str, Size],
) -> list[str]:
    """One mixture.json; returns what to tell."""
    place = require_output_file(output, [origin])
    parts, unknown = to_token_shares(blend.parts, blend.unit, sizes)
    if unknown:
        needed = "tokens and rows" if blend.unit == "rows" else "tokens"
        raise UserError(
            f"its numbers are {_WORDS[blend.unit]}; to make them shares of tokens, the {needed} of "
            f"{', '.join(unknown)} must be known: give --sizes FILE (name: {{tokens: N, rows: N}})"
        )
    weights = np.array([part.weight for part in parts], np.float64)
    total = float(weights.sum())
    MixtureFile(
        sources=[
            MixtureSource(
                name=name,
                weight=float(weight / total),
                prefix=part.path or None,
                tokens=part.tokens,
            )
            for name, part, weight in zip(names_of(parts), parts, weights, strict=True)
        ],
        search={
            "method": "imported",
            "imported_from": str(origin),
            "format": source_format,
            "unit": form.unit,
            "normalised_from": total,
            "notes": list(blend.notes),
        },
        versions=versions(),
    ).write(place)
    lines = list(blend.notes)
    if blend.unit != "tokens":
        lines.append(
            f"the file's numbers are {_WORDS[blend.unit]}; they were made shares of tokens"
        )
    elif abs(total - 1) > 1e-6:
        lines.append(f"the weights summed to {total:.6g}; they were normalised to 1")
    taken = "as published" if form.unit == "as published" else f"as shares of {_taken(form, blend)}"
    return [*lines, f"{len(parts)} sources; weights are taken {taken}"]


_WORDS = {
    "tokens": "shares of tokens",
    "rows": "shares of rows",
    "epochs": "epochs",
    "kept": "shares of rows kept",
}


def _taken(form: Format, blend: Blend) -> str:
    return form.unit if blend.unit == "tokens" else "tokens"


def _schedule(blends: Sequence[Blend], places: Sequence[Path]) -> list[str]:
    """The later stages as `fastmix train` takes them."""
    if any(blend.begins_tokens is None for blend in blends):
        return ["the file does not tell the tokens of a step: set stages[].from_tokens by hand"]
    stages = [
        {
            "name": re.sub(r"[^A-Za-z0-9_.+-]+", "_", blend.stage).strip("_") or "stage",
            "from_tokens": blend.begins_tokens,
            "mixture": str(place),
        }
        for blend, place in zip(blends[1:], places[1:], strict=True)
    ]
    text = yaml.safe_dump({"mixture": str(places[0]), "stages": stages}, sort_keys=False)
    return ["for fastmix train:", *text.rstrip().split("\n")]
