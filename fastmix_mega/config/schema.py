"""The one configuration schema, but for the methods' own sections, which come with the methods.

An unknown key is an error with a suggestion, every field has its meaning beside it, and nothing is
defaulted in silence: `config.yaml` in the run folder holds every value that the run used.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from fastmix_mega.config.base import PathText, Section, Seed
from fastmix_mega.config.parse import read_settings, validated
from fastmix_mega.config.phases import PhaseConfig
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


class Config(Section):
    """Everything that a run depends on."""

    run_dir: PathText
    seed: Seed = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    method: str = "fastmix"
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
    evaluation: EvaluationSection = EvaluationSection()
    checkpoint: CheckpointSection = CheckpointSection()
    guards: GuardsSection = GuardsSection()
    log: LogSection = LogSection()
    phases: list[PhaseConfig] = Field(default=[])
    """`fastmix search` only: phases of the large run, in order, each searched for itself from where
    the one before ended."""

    @field_validator("sources", "targets", "phases")
    @classmethod
    def _names_differ(
        cls, value: list[SourceConfig] | list[PhaseConfig]
    ) -> list[SourceConfig] | list[PhaseConfig]:
        names = [each.name for each in value]
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
        if self.parallel.interleave > 1 and self.parallel.pipeline == 1:
            raise ValueError("parallel.interleave needs parallel.pipeline > 1; set it to 1")
        limits = self.search.constraints
        if self.search.match_repetition and (limits is None or limits.budget_tokens is None):
            raise ValueError(
                "search.match_repetition needs search.constraints.budget_tokens, the large run's"
            )
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


def load_common_config(path: str | Path) -> Config:
    """What a recorded configuration says apart from the methods' own sections.

    Raises:
        UserError: with every mistake found, one a line.
    """
    content = read_settings(path)
    known = {key: value for key, value in content.items() if key in Config.model_fields}
    return validated(known, Config, str(path))
