"""What a run consists of, and what the trainer asks of the one who sets its mixture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from fastmix_mega.config.schema import Config
from fastmix_mega.data.run_inputs import Inputs
from fastmix_mega.data.sampler import MixtureSampler
from fastmix_mega.mixture.file import MixtureFile
from fastmix_mega.mixture.sampling import MixturePolicy
from fastmix_mega.model.presets import ModelShape

if TYPE_CHECKING:
    from fastmix_mega.parallel.layout import Layout
    from fastmix_mega.training.engine.engine import TrainingEngine
    from fastmix_mega.training.engine.observation import Observation

Verb = Literal["search", "train"]


@dataclass(frozen=True)
class Run:
    """The parts of one run on this process."""

    given: Config
    """As the user has it."""
    config: Config
    """With what the method fixes."""
    layout: Layout
    inputs: Inputs
    shape: ModelShape
    engine: TrainingEngine
    sampler: MixtureSampler

    def tokens(self, steps: int) -> int:
        """That so many training steps read."""
        return steps * self.config.train.global_batch * self.config.train.seq_length


class Mixer(Protocol):
    """Sets the mixture of a run. The trainer calls it around every training step."""

    policy: MixturePolicy
    """Of the next step; equal on every process."""
    outer_step: int
    """Updates made."""
    finished: bool
    """Whether the run may end before its last step; equal on every process."""

    def before_step(self, step: int) -> None:
        """Training step `step`, from 0, comes next. Collective."""

    def after_step(self, step: int) -> dict[str, Any] | None:
        """It is done. Collective. Returns a line for history.jsonl on rank 0, or None."""

    def state(self) -> dict[str, Any]:
        """This process's part of a checkpoint."""

    def load(self, state: dict[str, Any]) -> None: ...


class RunMethod(Protocol):
    """What the trainer asks of a mixture method (see `fastmix_mega.methods.base`)."""

    given: Config
    config: Config

    @property
    def verb(self) -> Verb:
        """What the user asked for."""

    def observes(self, layout: Layout, inputs: Inputs) -> Observation | None:
        """What the engine watches. Collective."""

    def mixer(self, run: Run) -> Any:
        """The `Mixer` of a run. Collective."""

    def conclude(self, run: Run, mixer: Any, steps: int) -> tuple[MixtureFile, list[str]]:
        """The answer after so many steps, and what to tell the user. On rank 0."""
