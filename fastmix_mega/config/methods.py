"""The configuration's sections of the methods that a search is compared with."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fastmix_mega.config.base import (
    PathText,
    PositiveFloat,
    PositiveInt,
    Section,
    Share,
    TokenCount,
)

UNTRAINED = ("uniform", "proportional", "ngram")
"""Methods that train nothing."""
SWARMS = ("regmix",)
"""Methods that train many proxies by sampling, and look at the targets at their ends."""


class RegMixSection(Section):
    """`method: regmix` only: a swarm of proxies, and a regression from mixtures to losses."""

    runs: Annotated[int, Field(ge=4, le=100_000)] = 48
    """Proxy runs; each is a `fastmix train` of `train.steps` in run_dir/swarm/NN. More can be added
    to a finished swarm: the first ones stay the same."""
    prior: PathText | dict[str, float] = "proportional"
    """What mixtures are drawn around: `proportional` to the tokens, as in the paper, `uniform`, a
    mixture.json, or weights by name."""
    families: Annotated[list[Literal["linear", "log", "lightgbm"]], Field(min_length=1)] = Field(
        default=["linear", "log", "lightgbm"]
    )
    """Regressions to choose from, by cross-validation on the swarm: ridge on shares, ridge on their
    logarithms, boosted trees."""
    candidates: PositiveInt = 100_000
    """Simulated mixtures."""
    top: PositiveInt = 128
    """How many of the best simulated mixtures are averaged."""


class NgramSection(Section):
    """`method: ngram` only: a mixture from pairs of tokens."""

    tokens: TokenCount = 4_000_000
    """Tokens that are read of each source, at most."""


class DoReMiSection(Section):
    """`method: doremi` only: a reference run, then group DRO on what the losses exceed its by."""

    step: PositiveFloat = 1.0
    """Of the mixture's logarithms, per nat of excess loss (the paper's eta)."""
    smoothing: Share = 1e-3
    """Share of the uniform mixture in every update (the paper's c)."""


class DoGESection(Section):
    """`method: doge` only: sources whose gradients agree with the objective's gain weight."""

    mu: PositiveFloat = 0.05
    """Regularisation: an update is learning rate * alignment / mu."""


class ODMSection(Section):
    """`method: odm` only: a bandit (EXP3) whose reward is a source's training loss."""

    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """What remains of a reward when a new one comes in (the paper's alpha)."""


class AioliSection(Section):
    """`method: aioli` only: in every round each source is probed, then the new mixture trained."""

    step: PositiveFloat = 1.0
    """Of the mixture's logarithms, per unit of the normalised effects (the paper's eta)."""
    probe_share: Annotated[float, Field(gt=0.5, le=1)] = 0.75
    """Of the source that is probed."""
    probe_steps: PositiveInt = 2
    """Training steps of one probe."""
    sweeps: PositiveInt = 1
    """Times that every source is probed in a round."""
    free_steps: PositiveInt = 16
    """Training steps at the mixture itself, at the end of every round."""
