"""What a mixture method is: everything that differs from one way of finding a mixture to another.

A new method is one new file here with a subclass of `Method`, and a line in `registry.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.base import Section
from fastmix_mega.config.schema import Config
from fastmix_mega.config.sections import BIGRAM
from fastmix_mega.data.rows import Source
from fastmix_mega.data.run_inputs import Inputs
from fastmix_mega.errors import UserError
from fastmix_mega.methods.result import Answer, mixture_file
from fastmix_mega.methods.search_cost import ProxyOperations
from fastmix_mega.mixture.advantage import FEW_OUTER_STEPS, few_outer_steps
from fastmix_mega.mixture.controller import MixtureEstimate
from fastmix_mega.mixture.file import MixtureFile, resolve_mixture
from fastmix_mega.mixture.simplex import effective_sources
from fastmix_mega.training.guards.mixture import is_collapsed
from fastmix_mega.training.run import Run, Verb

if TYPE_CHECKING:
    from fastmix_mega.parallel.layout import Layout
    from fastmix_mega.training.engine.observation import Observation


@dataclass
class Preview:
    """What a run begins with, as far as it is known before any training."""

    weights: FloatArray
    """[S] the mixture at the start."""
    when: str = "at the mixture it begins with"
    """In words, for the epochs that are shown."""
    mistakes: list[str] = field(default_factory=list)
    """Each keeps the run from starting."""
    warnings: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class OpenedData:
    """What a method may look at before a run: nothing is read but headers and small samples."""

    sources: Sequence[Source]
    targets: Sequence[Source]
    tokenizer_sha256: str

    @property
    def tokens(self) -> list[int]:
        """[S] of every source."""
        return [source.num_tokens for source in self.sources]


class Method:
    """One way to find a mixture; subclasses override what is their own.

    Args:
        config: as the user has it.
    """

    name: ClassVar[str]
    """The value of `method` in a configuration."""
    Settings: ClassVar[type[Section] | None] = None
    """The method's own section of the configuration, under its name; None without any."""
    verb: Verb = "search"
    needs_targets: ClassVar[bool] = True
    trains: ClassVar[bool] = True
    """Whether any model is trained."""
    own_run: ClassVar[bool] = True
    """Whether the run folder holds the checkpoints of one training run of its own."""
    free_sections: ClassVar[tuple[str, ...]] = ()
    """Sections of the configuration that may change when a search is started again."""

    def __init__(self, config: Config) -> None:
        self.given = config
        self.config = self.fix(config)
        """With what the method fixes, whatever the user's settings are."""

    @classmethod
    def fix(cls, config: Config) -> Config:
        """The configuration that the method's run works with."""
        return config

    @classmethod
    def objections(cls, config: Config) -> Iterator[str]:
        """Keys that this method has no use for: each is a mistake of the user's."""
        if config.search.stop_when_converged:
            yield "search.stop_when_converged needs method: fastmix; set it to 0"

    @property
    def settings(self) -> Any:
        """The method's own section."""
        return getattr(self.config, self.name)

    # Before a run.

    def problems(self) -> Iterator[str]:
        """Mistakes that the configuration alone shows; none for a method without targets."""
        return iter(())

    def preview(self, data: OpenedData) -> Preview:
        """What the run begins with.

        Raises:
            UserError: if that is not possible.
        """
        return Preview(self.initial(data))

    def initial(self, data: OpenedData) -> FloatArray:
        """[S] `search.initial` as given; uniform by default.

        Raises:
            UserError: if a file is wrong, or a key needs another method.
        """
        search = self.config.search
        for key, given in (
            (f"search.initial: {BIGRAM}", search.initial == BIGRAM),
            ("search.reuse", search.reuse is not None),
            ("search.constraints", search.constraints is not None),
            ("search.evidence", bool(search.evidence)),
        ):
            if given:
                raise UserError(f"{key} needs method: fastmix")
        return given_initial(self.config, data)

    # The run.

    def search(self) -> None:
        """Find the mixture and write it. Collective.

        Raises:
            Stopped: after a checkpoint, if a signal or a stop file asked for it.
            UserError: if the data or the run folder is not what it must be.
        """
        from fastmix_mega.training.trainer import run

        run(self)

    def observes(self, layout: Layout, inputs: Inputs) -> Observation | None:
        """What the engine watches while it trains. Collective."""
        del layout, inputs
        return None

    def mixer(self, run: Run) -> Any:
        """Sets the mixture of a run (`training.run.Mixer`). Collective."""
        raise NotImplementedError

    # After a run.

    def conclude(self, run: Run, mixer: Any, steps: int) -> tuple[MixtureFile, list[str]]:
        """The answer after so many steps, and what to tell the user. On rank 0."""
        from fastmix_mega.export.export import describe

        mixture = mixture_file(run, self.answer(run, mixer, steps), steps)
        path = Path(run.config.run_dir) / "mixture.json"
        return mixture, [*describe(mixture, None), f"mixture: {path}"]

    def answer(self, run: Run, mixer: Any, steps: int) -> Answer:
        """What the mixture file says. On rank 0."""
        estimate = mixer.result()
        return Answer(
            self.name,
            estimate,
            cost=self.cost(run, mixer.outer_step, steps),
            warnings=self.warnings(estimate, mixer.outer_step),
            outer_steps=mixer.outer_step,
        )

    def cost(self, run: Run, outer_steps: int, steps: int) -> float:
        """In proxy runs, of so many updates in so many training steps."""
        del outer_steps
        return steps / run.config.train.steps

    def operations(self, run: Run) -> ProxyOperations:
        """Of a plain training run."""
        return ProxyOperations.of(run.config.train, run.shape)

    def warnings(self, estimate: MixtureEstimate, outer_steps: int) -> list[str]:
        """What a reader of the mixture must know."""
        found: list[str] = []
        if outer_steps < FEW_OUTER_STEPS:
            found.append(few_outer_steps(outer_steps))
        least = self.config.guards.min_effective_sources
        if is_collapsed(effective_sources(estimate.weights), least, len(estimate.weights)):
            found.append(
                "The mixture has collapsed to almost one source; look for a source that overlaps "
                "the target, or lower search.step."
            )
        return found


def given_initial(config: Config, data: OpenedData) -> FloatArray:
    """[S] `search.initial` as given; uniform by default.

    Raises:
        UserError: if a file is wrong.
    """
    given = config.search.initial
    return resolve_mixture(
        "uniform" if given == "auto" else given,
        config.source_names,
        data.tokens,
        "search.initial",
    )


def target_weights(config: Config) -> FloatArray:
    """[K] the targets' shares of the objective, as given."""
    return np.array([target.weight for target in config.targets], np.float64)


def too_few_target_sequences(config: Config) -> Iterator[str]:
    """Whether a look at the targets can hold every one of them."""
    count = len(config.targets)
    if config.search.target_batch < count:
        yield (
            f"search.target_batch ({config.search.target_batch}) must be at least the number of "
            f"targets ({count})"
        )
