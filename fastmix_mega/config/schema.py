"""The one configuration schema: YAML plus dotted overrides, strict and typed.

An unknown key is an error with a suggestion, every field has its meaning beside it, and nothing is
defaulted in silence: `config.yaml` in the run folder holds every value that the run used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from fastmix_mega.config.base import PathText, Section, Seed
from fastmix_mega.config.methods import (
    AioliSection,
    DoGESection,
    DoReMiSection,
    NgramSection,
    ODMSection,
    RegMixSection,
)
from fastmix_mega.config.mistakes import explain_mistakes
from fastmix_mega.config.sections import (
    CheckpointSection,
    EvaluationSection,
    GuardsSection,
    KernelsSection,
    LogSection,
    ModelSection,
    ParallelSection,
    SearchSection,
    SourceConfig,
    StageConfig,
    TargetConfig,
    TrainSection,
)
from fastmix_mega.errors import UserError
from fastmix_mega.paths import rule_for


class Config(Section):
    """Everything that a run depends on."""

    run_dir: PathText
    seed: Seed = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    method: Literal[
        "fastmix",
        "reference",
        "regmix",
        "doremi",
        "doge",
        "odm",
        "aioli",
        "ngram",
        "proportional",
        "uniform",
    ] = "fastmix"
    """How the mixture is found. All but `fastmix` are there to compare: `reference` is the recipe
    of the authors' code; docs/baselines.md describes the others."""
    mixture: PathText | dict[str, float] = "uniform"
    """`fastmix train` only: `uniform`, `proportional`, a mixture.json or the run folder that holds
    it, or weights by name."""
    stages: list[StageConfig] = Field(default=[])
    """`fastmix train` only: mixtures that take over later in the run, in order. Every source goes
    on where it was, so that no sample is lost or repeated."""
    init_from: PathText | None = None
    """Start from these weights instead of random ones: a run folder (its newest checkpoint), one
    of its checkpoints, of any layout, or a Hugging Face folder. The optimizer starts fresh. A run
    that continues in its own folder does not read them again."""
    tokenizer: PathText
    sources: Annotated[list[SourceConfig], Field(min_length=1)]
    targets: list[TargetConfig] = Field(default=[])
    model: ModelSection = ModelSection(preset="1M")
    parallel: ParallelSection = ParallelSection()
    kernels: KernelsSection = KernelsSection()
    train: TrainSection
    search: SearchSection = SearchSection()
    regmix: RegMixSection = RegMixSection()
    ngram: NgramSection = NgramSection()
    doremi: DoReMiSection = DoReMiSection()
    doge: DoGESection = DoGESection()
    odm: ODMSection = ODMSection()
    aioli: AioliSection = AioliSection()
    evaluation: EvaluationSection = EvaluationSection()
    checkpoint: CheckpointSection = CheckpointSection()
    guards: GuardsSection = GuardsSection()
    log: LogSection = LogSection()

    @field_validator("sources", "targets")
    @classmethod
    def _names_differ(cls, value: list[SourceConfig]) -> list[SourceConfig]:
        names = [source.name for source in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the name {twice[0]!r} is used twice; every name must be its own")
        return value

    @model_validator(mode="after")
    def _parts_belong_together(self) -> Config:
        if self.parallel.sequence and self.parallel.tensor == 1:
            raise ValueError("parallel.sequence needs parallel.tensor > 1; set it to false")
        if self.guards.hang_minutes >= self.parallel.timeout_minutes:
            raise ValueError(
                f"guards.hang_minutes ({self.guards.hang_minutes:g}) must be below "
                f"parallel.timeout_minutes ({self.parallel.timeout_minutes:g}), or a stuck rank is "
                "never named; 0 turns it off"
            )
        if self.search.stop_when_converged and self.method != "fastmix":
            raise ValueError("search.stop_when_converged needs method: fastmix; set it to 0")
        if self.parallel.interleave > 1 and self.parallel.pipeline == 1:
            raise ValueError("parallel.interleave needs parallel.pipeline > 1; set it to 1")
        return self

    @property
    def source_names(self) -> list[str]:
        return [source.name for source in self.sources]

    @property
    def separate_targets(self) -> int:
        """Targets that are scored by themselves too: all of several, or 0."""
        count = len(self.targets)
        # The only target's scores are the scores.
        return count if count > 1 and self.search.target_scores > 0 else 0

    def fingerprint(self) -> str:
        """SHA-256 of all that can change a result (the run's folder and its logging cannot)."""
        content = self.model_dump(mode="json", exclude={"run_dir", "log", "checkpoint", "guards"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys in silence; a user meant one of them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                line = node.value[position][0].start_mark.line + 1
                raise UserError(f"the key {key!r} stands twice (line {line}); keep one of them")
        return super().construct_mapping(node, deep=deep)


def read_yaml(text: str, where: str) -> Any:
    """Parse YAML that may be wrong; UserError names `where` and the line."""
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{where} is not valid YAML: {reason}") from None


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration file and apply `key.path=value` overrides.

    Raises:
        UserError: with every mistake found, one a line, and where it stands.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        rule = rule_for(path)
        raise UserError(f"cannot read the configuration {path}: {error.strerror}{rule}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file; give a YAML configuration") from None
    content = read_yaml(text, str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold `key: value` lines, for example those of configs/")
    for override in overrides:
        _apply_override(content, override)
    return parse_config(content, where=str(path))


def parse_config(content: dict[str, Any], where: str = "the configuration") -> Config:
    """Validate plain data as a Config; UserError lists every mistake."""
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        raise UserError(explain_mistakes(error, where, Config)) from None


def _apply_override(content: dict[str, Any], override: str) -> None:
    path, equals, value = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UserError(f"the override {override!r} must look like train.steps=100")
    node: Any = content
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(node, list):
            if not key.isdigit() or int(key) >= len(node):
                raise UserError(
                    f"the override {override!r}: {'.'.join(keys[:depth])} is a list of "
                    f"{len(node)}; name an entry by its number, from 0"
                )
            index: Any = int(key)
        elif isinstance(node, dict):
            index = key
        else:
            raise UserError(f"the override {override!r}: {'.'.join(keys[:depth])} has no parts")
        if last:
            node[index] = read_yaml(value, f"the override {override!r}")
        else:
            if isinstance(node, dict) and node.get(index) is None:
                node[index] = {}
            node = node[index]
