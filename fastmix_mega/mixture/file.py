"""mixture.json: the search's answer as a file that people read and every verb accepts."""

from __future__ import annotations

import difflib
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fastmix_mega.arrays import FloatArray
from fastmix_mega.errors import UserError
from fastmix_mega.files import write_json
from fastmix_mega.paths import rule_for
from fastmix_mega.reading import read_json

RULES = ("uniform", "proportional")
"""Mixtures that need no file."""
Weight = Annotated[float, Field(ge=0, le=1)]
MOST_TOKENS = 10**18
"""That anything of a mixture file may count."""
Tokens = Annotated[int, Field(ge=0, le=MOST_TOKENS)]


class _Part(BaseModel):
    # A newer version may add fields: what we do not know is kept and ignored.
    model_config = ConfigDict(extra="allow", allow_inf_nan=False, frozen=True)


class MixtureSource(_Part):
    name: str
    weight: Weight
    """Share of the training tokens."""
    stderr: Annotated[float, Field(ge=0)] = 0.0
    prefix: str | list[str] | None = None
    tokens: Tokens | None = None
    data_sha256: list[str] | None = None
    """Of every file's tokens; None where a file has no manifest."""
    epochs_at_budget: Annotated[float, Field(ge=0)] | None = None
    """How often the source is read in a run of `search.budget_tokens` tokens, which an export may
    give, else of the search's own `search.train_tokens`."""
    gain: float | None = None
    """By how much the proxy's target loss fell per unit of this source's share over the search: the
    sum of learning rate x score over its steps, scaled so that the mixture's own sum is the fall
    that was seen (`search.gain_scale`)."""


class MixtureStage(_Part):
    """A phase of a plan."""

    name: str
    from_tokens: Tokens
    """Of the large run, before it begins."""
    tokens: Annotated[int, Field(gt=0, le=MOST_TOKENS)]
    weights: dict[str, Weight]
    """By source; they sum to 1."""
    run: str = ""
    """The run folder of its search, as found from the file."""


class MixtureFile(_Part):
    schema_: Annotated[Literal["fastmix-mixture/1"], Field(alias="schema")] = "fastmix-mixture/1"
    unit: Literal["tokens"] = "tokens"
    sources: Annotated[list[MixtureSource], Field(min_length=1)]
    targets: list[dict[str, Any]] = []
    tokenizer: dict[str, Any] = {}
    search: dict[str, Any] = {}
    versions: dict[str, str] = {}
    stages: list[MixtureStage] = []
    """Of a plan of several phases, whose mean over the whole run `sources` holds; else empty."""

    @model_validator(mode="after")
    def _weights_are_a_mixture(self) -> MixtureFile:
        for source in self.sources:
            prefixes = source.prefix or []
            if any("\0" in text for text in (source.name, *prefixes)):
                raise ValueError("a name or a prefix holds a zero byte")
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError("a source's name is used twice")
        trained = self.search.get("train_tokens")
        if isinstance(trained, int) and trained > MOST_TOKENS:
            raise ValueError(f"search.train_tokens is above {MOST_TOKENS:,}")
        total = sum(source.weight for source in self.sources)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the weights sum to {total:.6g} instead of 1")
        for stage in self.stages:
            if set(stage.weights) != set(names) or abs(sum(stage.weights.values()) - 1) > 1e-6:
                raise ValueError(f"stage {stage.name!r} is no mixture of the sources")
        return self

    @property
    def weights(self) -> dict[str, float]:
        """By source."""
        return {source.name: source.weight for source in self.sources}

    def content(self) -> dict[str, Any]:
        """As it is written."""
        return self.model_dump(
            mode="json", by_alias=True, exclude=None if self.stages else {"stages"}
        )

    def write(self, path: str | Path) -> None:
        write_json(path, self.content())


def weights_file(weights: Mapping[str, float]) -> dict[str, Any]:
    """The content of a mixture file that holds weights by source and nothing else."""
    sources = [{"name": name, "weight": weight} for name, weight in weights.items()]
    return {"schema": "fastmix-mixture/1", "sources": sources}


def mixture_path(given: str | Path) -> Path:
    """The mixture.json itself, or that of a run folder."""
    path = Path(given)
    return path / "mixture.json" if path.is_dir() else path


def versions() -> dict[str, str]:
    """What can change a result, as every mixture.json records it."""
    packages = ("fastmix-mega", "torch", "deepspeed", "megatron-core")
    return {name: version(name) for name in packages} | {"python": platform.python_version()}


def read_mixture(path: str | Path) -> MixtureFile:
    """Read and validate a mixture file.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    try:
        return MixtureFile.model_validate(read_json(path))
    except OSError as error:
        reason = f"{error.strerror}{rule_for(path)}"
        raise UserError(f"cannot read the mixture {path}: {reason}") from None
    except (ValidationError, ValueError, RecursionError) as error:
        reason = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = ": ".join([*(str(each) for each in first["loc"]), first["msg"]])
        raise UserError(f"{path} is not a mixture file: {reason}") from None


def _named_mixture(given: str, where: str) -> MixtureFile:
    """A mixture.json or a run folder's; a word that is nearly a rule's is said to be so."""
    path = mixture_path(given)
    close = difflib.get_close_matches(given, RULES, n=1)
    if close and not path.exists():
        raise UserError(
            f"{where}: {given!r} is neither a file nor a rule; did you mean {close[0]!r}?"
        )
    return read_mixture(path)


def resolve_mixture(
    given: str | dict[str, float], names: Sequence[str], tokens: Sequence[int], where: str
) -> FloatArray:
    """[S] weights from `uniform`, `proportional`, a mixture.json, a run folder, or by name.

    Args:
        given: as in the configuration.
        names: of the sources, in order.
        tokens: each source's tokens.
        where: the configuration's key, for messages.

    Raises:
        UserError: if the names differ from the sources', or the weights do not sum to 1.
    """
    if given == "uniform":
        return np.full(len(names), 1.0 / len(names))
    if given == "proportional":
        return np.asarray(tokens, np.float64) / sum(tokens)
    if isinstance(given, str):
        file = _named_mixture(given, where)
        if file.stages:
            phases = ", ".join(stage.run or stage.name for stage in file.stages)
            raise UserError(
                f"{where}: {given} is a plan of {len(file.stages)} phases; give one of them "
                f"({phases}), or take all: fastmix export {given} --to fastmix-stages"
            )
        by_name = file.weights
        where = f"{where} ({given})"
    else:
        by_name = given
    unknown = sorted(set(by_name) - set(names))
    missing = sorted(set(names) - set(by_name))
    if unknown or missing:
        parts = [f"no weight for {', '.join(missing)}"] if missing else []
        parts += [f"{', '.join(unknown)} is no source here"] if unknown else []
        raise UserError(f"{where}: {'; '.join(parts)}; name every source once")
    weights = np.array([by_name[name] for name in names], np.float64)
    if (weights < 0).any() or not np.isfinite(weights).all():
        raise UserError(f"{where}: weights must be finite and not negative")
    if abs(weights.sum() - 1) > 1e-6:
        raise UserError(f"{where}: the weights sum to {weights.sum():.6g}; they must sum to 1")
    return weights / weights.sum()
