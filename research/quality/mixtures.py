"""Which weights a training of the judge is for: from its name and the records so far."""

from __future__ import annotations

import re
import zlib

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.data.run_inputs import open_inputs
from research.quality.jobs import SEARCH_SEEDS, SWARM_SEED, Job
from research.quality.records import Records
from research.quality.rules import REPLAYED, SETTINGS, TRIALS, replayed
from research.quality.runs import Family

SWARM_STRENGTHS = (0.3, 3.0)
"""Of the swarm's Dirichlet laws, per source: from a few sources each to nearly even."""
SWARM_DICE = 20261124
UNTRAINED = ("ngram", "token_pairs")
"""The control, and what a search begins with."""


def swarm_mixture(number: int, source_count: int) -> FloatArray:
    """[S] of run `number`; it depends on nothing else."""
    dice = np.random.default_rng([SWARM_DICE, number, source_count])
    low, high = np.log(SWARM_STRENGTHS)
    strength = np.exp(dice.uniform(low, high))
    weights: FloatArray = np.maximum(dice.dirichlet(np.full(source_count, strength)), 1e-12)
    return weights / weights.sum()


def swarm_results(
    records: Records, count: int, target: str
) -> tuple[FloatArray, FloatArray] | None:
    """[N, S] mixtures and [N] losses of the first runs of the swarm; None if some are missing."""
    found = [records.get("train", f"swarm.{number}", SWARM_SEED) for number in range(count)]
    rows = [each for each in found if each is not None]
    if len(rows) < count:
        return None
    return (
        np.array([each.weights for each in rows]),
        np.array([each.losses[target] for each in rows]),
    )


def swarm_size(method: str) -> int:
    """48 of `regmix48` and of `swarmbest48`."""
    return int(re.sub(r"\D", "", method))


def weights_for(job: Job, family: Family, records: Records) -> FloatArray | None:
    """[S] of a training; None while the runs that it rests on are missing."""
    count = len(family.config.sources)
    kind, *rest = job.name.split(".")
    if kind == "uniform":
        return np.full(count, 1 / count)
    if kind == "proportional":
        return np.array(family.tokens) / sum(family.tokens)
    if kind == "single":
        return np.eye(count)[family.config.source_names.index(rest[0])]
    if kind == "swarm":
        return swarm_mixture(int(rest[0]), count)
    target = rest[0]
    if kind in UNTRAINED:
        return _untrained(kind, family, target)
    if kind in TRIALS:
        return _trial(kind, target, records)
    if kind.startswith(("regmix", "swarmbest")):
        results = swarm_results(records, swarm_size(kind), target)
        if results is None:
            return None
        mixtures, losses = results
        if kind.startswith("swarmbest"):
            return mixtures[np.argmin(losses)]
        return fitted_mixture(mixtures, losses, seed=zlib.crc32(job.name.encode()))
    found = records.get("search", f"{kind}.{target}", int(rest[1].removeprefix("s")))
    return None if found is None else np.array(found.weights)


def fitted_mixture(mixtures: FloatArray, losses: FloatArray, seed: int) -> FloatArray:
    """[S] RegMix's answer from a swarm; its regression is chosen by cross-validation."""
    from fastmix_mega.mixture import regression as regmix

    predict = regmix.fit(mixtures, losses, seed=seed)
    even = np.full(mixtures.shape[1], 1 / mixtures.shape[1])
    return regmix.best_mixture(predict, even * mixtures.shape[1], seed=seed)


def _untrained(kind: str, family: Family, target: str) -> FloatArray:
    from fastmix_mega.methods.ngram import Ngram
    from fastmix_mega.methods.start import bigram_mixture

    index = family.targets.index(target)
    config = family.config.model_copy(update={"targets": [family.config.targets[index]]})
    inputs = open_inputs(config)
    if kind == "ngram":
        return Ngram(config).fit(inputs).shares
    return bigram_mixture(config, inputs)


def _trial(name: str, target: str, records: Records) -> FloatArray | None:
    found = records.get("search", f"{REPLAYED}.{target}", SEARCH_SEEDS[0])
    if found is None:
        return None
    return replayed(found.details["history"], SETTINGS | TRIALS[name])
