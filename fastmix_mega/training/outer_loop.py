"""The outer loop of a search: observe a window, update, broadcast.

Every process observes; the sums meet in one all-reduce of S-vectors; rank 0's controller updates
the mixture and broadcasts it with the outer step's number, which every process checks.
"""

from __future__ import annotations

import time
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from fastmix_mega.arrays import FloatArray
from fastmix_mega.mixture.controller import Controller, MixtureEstimate
from fastmix_mega.mixture.outer_schedule import Schedule
from fastmix_mega.mixture.sampling import MixturePolicy
from fastmix_mega.mixture.simplex import effective_sources, entropy
from fastmix_mega.parallel.layout import Layout
from fastmix_mega.training.observers import Observer

SomeObserver = TypeVar("SomeObserver", bound=Observer)


class OuterLoop(Generic[SomeObserver]):
    """Sets the mixture of a search (see `training.run.Mixer`).

    Args:
        layout: this process's place.
        schedule: when windows start and end.
        observer: what is learned in a window.
        controller: the rule; on rank 0 only, the others learn the outcome.
        policy: the first mixture, and how it is sampled.
        first_window: [S] the mixture of the first window, where it is another one.
    """

    def __init__(
        self,
        layout: Layout,
        schedule: Schedule,
        observer: SomeObserver,
        controller: Controller | None,
        policy: MixturePolicy,
        first_window: FloatArray | None = None,
    ) -> None:
        self.schedule = schedule
        self.observer = observer
        self.controller = controller
        self.policy = policy
        self.outer_step = 0
        self.finished = False
        """Whether the mixture has settled, so that the search may end; on every process alike."""
        self._layout = layout
        self._first_window = first_window

    def before_step(self, step: int) -> None:
        """Start a window if one starts here. Collective."""
        if not self.schedule.starts_window(step):
            return
        self.observer.start_window(step, self.outer_step)
        if self.outer_step == 0 and self._first_window is not None:
            self.policy = self.policy.moved_to(self._first_window)

    def after_step(self, step: int) -> dict[str, Any] | None:
        """Update the mixture if a window ends here. Collective.

        Returns:
            The line for history.jsonl on rank 0 (without its token count), None otherwise.
        """
        if not self.schedule.ends_window(step):
            return None
        sampled = self.policy
        sums = self.observer.end_window(sampled.mixture)
        started = time.perf_counter()
        estimate = None
        if self.controller is not None:
            estimate = self.controller.update(sums)
            self.observer.learn(step, sampled.mixture, estimate)
        self._broadcast()
        if estimate is None:
            return None
        assert self.controller is not None
        mixture = self.policy.mixture
        return {
            "outer_step": self.outer_step,
            "step": step + 1,
            "mixture": mixture.tolist(),
            "sampling": sampled.distribution.tolist(),
            "scores": estimate.mean.tolist(),
            "score_stderr": estimate.standard_error.tolist(),
            "counts": sums[2].astype(int).tolist(),
            "entropy": entropy(mixture),
            "effective_sources": effective_sources(mixture),
            **self.controller.row(),
            **self.observer.row(),
            "seconds": round(self.observer.seconds + time.perf_counter() - started, 4),
        }

    def _broadcast(self) -> None:
        """Rank 0 announces its outer step, whether the mixture has settled, and the mixture.

        Raises:
            RuntimeError: if a process is at another outer step.
        """
        own = self.controller
        self.outer_step += 1
        size = 2 + len(self.policy.mixture)
        message = torch.zeros(size, dtype=torch.float64, device=self._layout.device)
        if own is not None:
            sent = np.concatenate(([own.outer_step, own.settled], own.mixture))
            message.copy_(torch.from_numpy(sent))
        received: FloatArray = self._layout.broadcast_from_main(message).cpu().numpy()
        if int(received[0]) != self.outer_step:
            raise RuntimeError(
                f"rank {self._layout.rank} is at outer step {self.outer_step}, but rank 0 "
                f"announced {int(received[0])}: the processes have lost step with each other"
            )
        self.finished = bool(received[1])
        self.policy = self.policy.moved_to(received[2:].copy())

    def result(self) -> MixtureEstimate:
        """The search's answer; on rank 0 only."""
        assert self.controller is not None
        return self.controller.result()

    def state(self) -> dict[str, Any]:
        """This process's part of a checkpoint, but for the engine's."""
        return {
            "outer_step": self.outer_step,
            "finished": self.finished,
            "mixture": self.policy.mixture,
            "observer": self.observer.state(),
            "controller": None if self.controller is None else self.controller.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.outer_step = state["outer_step"]
        self.finished = state["finished"]
        self.policy = self.policy.moved_to(state["mixture"])
        self.observer.load(state["observer"])
        if self.controller is not None:
            self.controller.load(state["controller"])
