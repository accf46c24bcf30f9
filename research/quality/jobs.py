"""Which runs make up the judge's table, and in which order.

Names of trainings: `uniform`, `proportional`, `single.SOURCE`, `swarm.K`, `METHOD.TARGET.s1` for
the mixture of a search with seed 1, `METHOD.TARGET` for one without a search of its own (n-grams,
fits to the swarm). Names of searches: `METHOD.TARGET`.

The order is one of rounds, so that what is there at any moment is a table with fewer seeds, not a
part of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from research.quality.records import Kind

SEARCH_SEEDS = (1, 2, 3)
EVALUATION_SEEDS = (101, 102, 103)
SWARM_SEED = 1001
"""Of every run of the swarm: common noise cancels in its fits."""
SWARM = (6, 12, 24, 48)
"""Sizes at which mixtures are fitted, by prefix."""

SEARCHES: dict[str, list[str]] = {
    "fastmix": [
        *("method=fastmix", "search.answer=trajectory", "search.initial=bigram"),
        *("search.warmup=null", "search.target_batch=16"),
    ],
    "surface": [
        *("method=fastmix", "search.answer=surface", "search.warmup=null"),
        *("search.target_batch=16", "search.score_tokens=null"),
    ],
    "fastmix_scores": ["method=fastmix", "search.answer=trajectory", "search.initial=uniform"],
    "reference": ["method=reference", "search.score_tokens=1"],
    "odm": ["method=odm"],
    "aioli": ["method=aioli"],
    "doge": ["method=doge"],
    "doremi": ["method=doremi"],
}
"""Methods of one search a target, and their settings beyond the family's own. `surface` is the
product's default since 2026-11-26, `fastmix` what it was before."""


@dataclass(frozen=True)
class Job:
    kind: Kind
    name: str
    seed: int
    method: str = ""
    target: str = ""
    """Searches only."""


@dataclass(frozen=True)
class Plan:
    """Jobs in order, for a family's sources and targets.

    `methods` are of `SEARCHES`, beyond `fastmix`, `fastmix_scores` and `reference`; `trials` are of
    `rules.TRIALS`.
    """

    sources: Sequence[str]
    targets: Sequence[str]
    methods: Sequence[str]
    trials: Sequence[str] = ()

    def jobs(self) -> list[Job]:
        """Every run of the table once, in the order of the rounds."""
        one, *others = EVALUATION_SEEDS
        rounds = [
            self._trainings(("uniform",), EVALUATION_SEEDS),
            self._searched(["fastmix"], 0),
            self._trainings(self._fitted("ngram"), (one,)),
            self._trainings(self._fitted("token_pairs"), (one,)),
            self._trainings(self._swarm(0, 48), (SWARM_SEED,)),
            self._trainings(self._fitted("regmix48"), (one,)),
            self._trainings(self._fitted("swarmbest48"), (one,)),
            self._searched(["fastmix"], 1),
            self._searched(["fastmix"], 2),
            *(
                self._trainings(self._fitted(name), others)
                for name in ("ngram", "token_pairs", "regmix48", "swarmbest48")
            ),
            *(self._searched(["fastmix_scores"], number) for number in (0, 1, 2)),
            *(self._trainings(self._fitted(name), (one,)) for name in self.trials),
            *(self._searched(["reference"], number) for number in (0, 1)),
            self._trainings(self._fitted("regmix24"), EVALUATION_SEEDS),
            self._trainings(self._fitted("regmix12"), EVALUATION_SEEDS),
            self._searched(self.methods, 0),
            self._trainings(("proportional",), EVALUATION_SEEDS),
            self._trainings(self._fitted("regmix6"), (one,)),
            self._trainings([f"single.{name}" for name in self.sources], (one,)),
            self._searched(["reference"], 2),
            *(self._searched(self.methods, number) for number in (1, 2)),
            self._trainings(self._fitted("regmix6"), others),
        ]
        return list(dict.fromkeys(job for each in rounds for job in each))

    def _searched(self, methods: Sequence[str], number: int) -> list[Job]:
        """A search of every method and target, and the training of what it finds."""
        seed, evaluation = SEARCH_SEEDS[number], EVALUATION_SEEDS[number]
        return [
            job
            for method in methods
            for target in self.targets
            for job in (
                Job("search", f"{method}.{target}", seed, method, target),
                Job("train", f"{method}.{target}.s{seed}", evaluation),
            )
        ]

    def _fitted(self, method: str) -> list[str]:
        return [f"{method}.{target}" for target in self.targets]

    def _swarm(self, first: int, end: int) -> list[str]:
        return [f"swarm.{number}" for number in range(first, end)]

    def _trainings(self, names: Sequence[str], seeds: Sequence[int]) -> list[Job]:
        # By seed first: every name once before any twice.
        return [Job("train", name, seed) for seed in seeds for name in names]
