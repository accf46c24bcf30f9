"""`phases`: one plan for pre-training, annealing and continued pre-training."""

from __future__ import annotations

from pydantic import Field

from fastmix_mega.config.base import Name, PathText, PositiveInt, Section, TokenCount
from fastmix_mega.config.constraints import Constraints
from fastmix_mega.config.sections import ScheduleSection, TargetConfig


class PhaseConfig(Section):
    """A part of the large run with a mixture of its own, which is searched for it."""

    name: Name
    tokens: TokenCount
    """Of the large run in this phase."""
    targets: list[TargetConfig] = Field(default=[])
    """Its own; by default those of the configuration."""
    constraints: Constraints | None = None
    """Its own limits; by default `search.constraints`. Their budget is the phase's tokens."""
    init_from: PathText | None = None
    """Where its search starts. By default at the end of the trunk: the proxy that was trained on
    the mixtures found for the phases before."""
    steps: PositiveInt | None = None
    """Of the proxy in this phase; by default `train.steps`."""
    schedule: ScheduleSection | None = None
    """The proxy's learning rate in this phase; by default `train.schedule`."""
