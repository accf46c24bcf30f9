"""What a method fixes of the configuration, whatever the user's settings of a search are."""

from __future__ import annotations

from typing import Any

from fastmix_mega.config.schema import Config
from fastmix_mega.config.sections import TargetConfig
from fastmix_mega.training.engine.loss_meters import EXCESS_LOSSES, LOSSES

GRADIENTS = ("fastmix", "reference", "doge")
"""Methods that compare gradients with the targets'."""
TARGETLESS = ("uniform", "proportional", "odm", "doremi", "doge")
"""Methods that need no targets."""


def as_method(config: Config) -> Config:
    """The configuration that the loop of `config.method` works with.

    - doge: raw gradients of all parameters; uniform sampling with weighted losses. Without targets
      the objective is the sum over the sources (the paper's universal generalisation), measured on
      samples of their own.
    - doremi: uniform sampling with weighted losses, an update at every step.
    - odm: sampling from the mixture, an update at every step.
    - aioli: sampling from the mixture.
    - reference: all tokens are scored, as in the authors' code.
    """
    search: dict[str, Any] = {"objective": "mean", "target_scores": 0.0}
    other: dict[str, Any] = {}
    if config.method == "doge":
        search |= {"scores": "all", "precondition": False, "exploration": 1.0}
        if not config.targets:
            other["targets"] = [
                TargetConfig(name=f"{source.name}.target", prefix=source.prefix)
                for source in config.sources
            ]
            # The measured gradient is the mean over the sources, the paper's is their sum.
            other["doge"] = config.doge.model_copy(
                update={"mu": config.doge.mu / len(config.sources)}
            )
    elif config.method in ("odm", "doremi"):
        search |= {"scores": "head", "every": 1}
        search["exploration"] = 1.0 if config.method == "doremi" else 0.0
    elif config.method == "aioli":
        search |= {"scores": "head", "exploration": 0.0}
    elif config.method == "reference":
        search = {"score_tokens": config.search.score_tokens or 1.0}
    else:
        return config
    other["search"] = config.search.model_copy(update=search)
    return config.model_copy(update=other)


def measured(config: Config) -> str | None:
    """What the engine's meter measures in a search; None for nothing."""
    found = {"odm": LOSSES, "doremi": EXCESS_LOSSES, "aioli": None}
    return found.get(config.method, config.search.scores)


def reference_folder(run_dir: str) -> str:
    """Where `method: doremi` trains its reference model."""
    return f"{run_dir}/reference"
