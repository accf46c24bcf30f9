"""Every mixture method by its name: the one place that a new method is added to."""

from __future__ import annotations

from fastmix_mega.config.schema import Config
from fastmix_mega.methods.aioli import Aioli
from fastmix_mega.methods.base import Method
from fastmix_mega.methods.doge import DoGE
from fastmix_mega.methods.doremi import DoReMi
from fastmix_mega.methods.fastmix import FastMix
from fastmix_mega.methods.fixed import FixedMixture
from fastmix_mega.methods.ngram import Ngram
from fastmix_mega.methods.odm import ODM
from fastmix_mega.methods.reference import Reference
from fastmix_mega.methods.regmix import RegMix
from fastmix_mega.methods.untrained import Proportional, Uniform
from fastmix_mega.training.run import Verb

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        FastMix,
        Reference,
        RegMix,
        DoReMi,
        DoGE,
        ODM,
        Aioli,
        Ngram,
        Proportional,
        Uniform,
    )
}
"""What `method` may say."""


def method_of(config: Config, verb: Verb = "search") -> Method:
    """The method of a search; for a training, the fixed mixture."""
    return FixedMixture(config) if verb == "train" else METHODS[config.method](config)
