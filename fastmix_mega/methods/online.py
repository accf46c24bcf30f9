"""Online baselines: their update rules as pure functions, and controllers around them.

ODM (Albalak et al., 2023, arXiv 2312.02406), DoReMi (Xie et al., 2023, arXiv 2305.10429), DoGE (Fan
et al., 2024, arXiv 2310.15393) and Aioli (Chen et al., 2024, arXiv 2411.05735). A controller takes
a window's [4, S] sums like those of `controller.py`; what is summed differs by method (`signals`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.schema import Config
from fastmix_mega.methods.fastmix import Controller, MixtureEstimate, build_controller
from fastmix_mega.methods.start import SearchStart
from fastmix_mega.mixture.sampling import OuterSchedule, RoundSchedule
from fastmix_mega.mixture.simplex import DecayedSums, ScoreEstimate, softmax
from fastmix_mega.training.engine.schedule import learning_rate


def odm_exploration(source_count: int, turn: int) -> float:
    """ODM, Algorithm 1: min(1/K, sqrt(ln K / (K t))), and 1/K before the first turn."""
    if turn == 0:
        return 1 / source_count
    return min(1 / source_count, float(np.sqrt(np.log(source_count) / (source_count * turn))))


def odm_mixture(rewards: FloatArray, turn: int) -> FloatArray:
    """ODM, Algorithm 1: (1 - K e_t) softmax(e_(t-1) * rewards) + e_t, for turn t of at least 1."""
    count = len(rewards)
    now, before = odm_exploration(count, turn), odm_exploration(count, turn - 1)
    return (1 - count * now) * softmax(before * rewards) + now


def odm_rewards(
    rewards: FloatArray, sums: FloatArray, sampled: FloatArray, smoothing: float
) -> FloatArray:
    """ODM, Algorithm 1: a * reward + (1 - a) * loss / probability, for the sources that were drawn.

    Args:
        rewards: [S] so far.
        sums: [4, S] of the sequences' losses; the batch's draws are averaged.
        sampled: [S] the law that the batch was drawn from.
        smoothing: a.
    """
    total, count = sums[0], sums[2]
    weighted = total / max(float(count.sum()), 1.0) / sampled
    return np.where(count > 0, smoothing * rewards + (1 - smoothing) * weighted, rewards)


def doremi_mixture(
    mixture: FloatArray, excess: FloatArray, step: float, smoothing: float
) -> FloatArray:
    """DoReMi, Algorithm 1: exponentiated gradient ascent on clipped excess losses, then smoothing.

    Args:
        mixture: [S] positive.
        excess: [S] mean over tokens of max(loss - reference loss, 0).
        step: eta, 1 in the paper.
        smoothing: c, the share of the uniform mixture; 1e-3 in the paper.
    """
    raised = softmax(np.log(mixture) + step * excess)
    return (1 - smoothing) * raised + smoothing / len(mixture)


def doge_mixture(mixture: FloatArray, alignment: FloatArray, rate: float, mu: float) -> FloatArray:
    """DoGE, equation 5 and Algorithm 1: mixture * exp(rate * W / mu), normalised.

    Args:
        mixture: [S] positive.
        alignment: [S] W: <a source's gradient, the objective's gradient>.
        rate: the learning rate of the step, or the sum over the steps that share W.
        mu: strength of the Bregman regularisation.
    """
    return softmax(np.log(mixture) + rate * alignment / mu)


def aioli_effects(drops: FloatArray, share: float) -> FloatArray:
    """Aioli, LearnParams (its Algorithm 2): A from the loss drops under S probing mixtures.

    Probe j gives source j the `share` and the others equal parts, so that drops = M A with M the
    probes' mixtures.

    Args:
        drops: [S] fall of the objective while each source was probed.
        share: 1 probes a source alone.
    """
    count = len(drops)
    probes = np.stack([aioli_probe(count, source, share) for source in range(count)])
    return np.asarray(np.linalg.solve(probes, drops), np.float64)


def aioli_probe(source_count: int, source: int, share: float) -> FloatArray:
    """[S] the probing mixture of a source."""
    probe = np.full(source_count, (1 - share) / max(1, source_count - 1))
    probe[source] = share if source_count > 1 else 1.0
    return probe


def aioli_mixture(mixture: FloatArray, effects: FloatArray, step: float) -> FloatArray:
    """Aioli, Algorithm 1: mixture * exp(step * A), normalised, with A scaled as its code does.

    Negative entries are lifted to 0 and A is made to sum to 1, so that the large falls of the first
    steps do not outweigh all that follows.
    """
    lifted = effects - min(0.0, float(effects.min()))
    return softmax(np.log(mixture) + step * lifted / max(float(lifted.sum()), 1e-300))


@dataclass
class _Averaged:
    """Controllers whose answer is the mean of the mixtures after every update."""

    initial: FloatArray
    outer_step: int = 0
    _mixture: FloatArray = field(init=False)
    _total: FloatArray = field(init=False)
    _scores: FloatArray = field(init=False)
    """[S] what the rule remembers of each source."""

    def __post_init__(self) -> None:
        self._mixture = self.initial
        self._total, self._scores = np.zeros((2, len(self.initial)))

    @property
    def mixture(self) -> FloatArray:
        return self._mixture

    @property
    def standard_errors(self) -> FloatArray:
        """[S] of 0: none of these papers has any."""
        return np.zeros_like(self.initial)

    def update(self, sums: FloatArray) -> ScoreEstimate:
        estimate = DecayedSums.zeros(len(self.initial)).add(sums, 0.0).estimate()
        self._mixture = self._moved(sums, estimate.mean)
        self.outer_step += 1
        self._total = self._total + self._mixture
        return estimate

    def _moved(self, sums: FloatArray, means: FloatArray) -> FloatArray:
        """The next mixture from a window's [4, S] sums and their [S] means."""
        raise NotImplementedError

    def result(self) -> MixtureEstimate:
        mean = self._total / self.outer_step if self.outer_step else self.initial
        return MixtureEstimate(mean / mean.sum(), self.standard_errors)

    def state(self) -> dict[str, Any]:
        names = ("outer_step", "_mixture", "_total", "_scores")
        return {name.lstrip("_"): getattr(self, name) for name in names}

    def load(self, state: dict[str, Any]) -> None:
        self.outer_step = state["outer_step"]
        self._mixture, self._total = state["mixture"], state["total"]
        self._scores = state["scores"]


@dataclass
class ODMController(_Averaged):
    """A bandit whose rewards are the sources' training losses."""

    smoothing: float = 0.9

    def _moved(self, sums: FloatArray, means: FloatArray) -> FloatArray:
        del means
        self._scores = odm_rewards(self._scores, sums, self._mixture, self.smoothing)
        return odm_mixture(self._scores, self.outer_step + 1)


@dataclass
class DoReMiController(_Averaged):
    """Group DRO on excess losses; a source that a batch holds none of keeps its last one."""

    step: float = 1.0
    smoothing: float = 1e-3

    def _moved(self, sums: FloatArray, means: FloatArray) -> FloatArray:
        self._scores = np.where(sums[2] > 0, means, self._scores)
        return doremi_mixture(self._mixture, self._scores, self.step, self.smoothing)


@dataclass
class DoGEController(_Averaged):
    """Mirror descent on the alignment of raw gradients; the rates are those of a window's steps."""

    mu: float = 0.05
    rate: Callable[[int], float] = float
    """outer step -> the learning rates of its window, summed."""

    def _moved(self, sums: FloatArray, means: FloatArray) -> FloatArray:
        del sums
        return doge_mixture(self._mixture, means, self.rate(self.outer_step), self.mu)


@dataclass
class AioliController(_Averaged):
    """Rounds of probing windows, one a source and sweep in random order, and a free window."""

    step: float = 1.0
    share: float = 0.75
    sweeps: int = 1
    seed: int = 0
    _base: FloatArray = field(init=False)
    """[S] p^t, which the free windows train on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._base = self.initial
        self._mixture = self._at(0)

    @property
    def _windows(self) -> int:
        return len(self.initial) * self.sweeps + 1

    def probed(self, outer_step: int) -> int | None:
        """The source of a window; None for a free one."""
        turn, place = divmod(outer_step, self._windows)
        sweep, place = divmod(place, len(self.initial))
        if sweep == self.sweeps:
            return None
        random = np.random.Generator(np.random.Philox(key=[self.seed, turn * self.sweeps + sweep]))
        return int(random.permutation(len(self.initial))[place])

    def _at(self, outer_step: int) -> FloatArray:
        source = self.probed(outer_step)
        if source is None:
            return self._base
        return aioli_probe(len(self.initial), source, self.share)

    def update(self, sums: FloatArray) -> ScoreEstimate:
        """`sums` hold one observation: the objective's fall in the window, at any source."""
        source, fall = self.probed(self.outer_step), float(sums[0].sum())
        placed = np.zeros((4, len(self.initial)))
        if source is not None:
            self._scores = self._scores + fall / self.sweeps * (np.arange(len(placed[0])) == source)
            placed[:, source] = fall, fall**2, 1, 1
        estimate = DecayedSums.zeros(len(self.initial)).add(placed, 0.0).estimate()
        self.outer_step += 1
        if self.outer_step % self._windows == self._windows - 1:
            effects = aioli_effects(self._scores, self.share)
            self._base = aioli_mixture(self._base, effects, self.step)
            self._scores = np.zeros(len(self.initial))
            self._total = self._total + self._base
        self._mixture = self._at(self.outer_step)
        return estimate

    def result(self) -> MixtureEstimate:
        rounds = (self.outer_step + 1) // self._windows
        mean = self._total / rounds if rounds else self.initial
        return MixtureEstimate(mean / mean.sum(), self.standard_errors)

    def state(self) -> dict[str, Any]:
        return super().state() | {"base": self._base}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self._base = state["base"]


def schedule_of(config: Config, from_pairs: bool = False) -> OuterSchedule | RoundSchedule:
    """When the search of `config.method` has its outer steps.

    Args:
        config: of the search.
        from_pairs: whether it begins at token pairs.
    """
    if config.method != "aioli":
        return OuterSchedule.of(config.search, config.method, config.train.steps, from_pairs)
    aioli = config.aioli
    lengths = [aioli.probe_steps] * (len(config.sources) * aioli.sweeps) + [aioli.free_steps]
    return RoundSchedule(config.search.warmup_steps(), tuple(lengths), config.train.steps)


def controller_of(config: Config, start: SearchStart) -> Controller:
    """The controller of `config.method`, at the search's first mixture."""
    initial = start.initial
    if config.method == "odm":
        return ODMController(initial, smoothing=config.odm.smoothing)
    if config.method == "doremi":
        return DoReMiController(initial, step=config.doremi.step, smoothing=config.doremi.smoothing)
    if config.method == "doge":
        return DoGEController(initial, mu=config.doge.mu, rate=_window_rate(config))
    if config.method == "aioli":
        aioli = config.aioli
        return AioliController(
            initial,
            step=aioli.step,
            share=aioli.probe_share,
            sweeps=aioli.sweeps,
            seed=config.seed,
        )
    project = None if start.constraints is None else start.constraints.project
    tied = None if start.reuse is None else start.reuse.tied
    return build_controller(
        config.method,
        config.search,
        initial,
        project,
        tied,
        step=start.step,
        epochs=start.epochs,
    )


def _window_rate(config: Config) -> Callable[[int], float]:
    """outer step -> the sum of the learning rates of its window's steps."""
    train, search = config.train, config.search

    def rate(outer_step: int) -> float:
        first = search.warmup_steps() + outer_step * search.every
        steps = range(first, first + search.every)
        return sum(learning_rate(train.schedule, step, train.steps) for step in steps)

    return rate
