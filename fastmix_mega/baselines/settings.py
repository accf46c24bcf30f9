"""The configuration's sections of the methods that a search is compared with."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fastmix_mega.section import PositiveInt, Section, TokenCount

UNTRAINED = ("uniform", "proportional", "ngram")
"""Methods that train nothing."""
SWARMS = ("regmix",)
"""Methods that train many proxies by sampling, and look at the targets at their ends."""


class RegMixSection(Section):
    """`method: regmix` only: a swarm of proxies, and a regression from mixtures to losses."""

    runs: Annotated[int, Field(ge=4, le=100_000)] = 48
    """Proxy runs; each is a `fastmix train` of `train.steps` in run_dir/swarm/NN. More can be added
    to a finished swarm: the first ones stay the same."""
    prior: str | dict[str, float] = "proportional"
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
