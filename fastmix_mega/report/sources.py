"""What the report says about every source, gathered from the files of a run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from fastmix_mega.report.read import OuterStep, Run

COLOURS = 10
"""Sources that get a colour of their own; the others stay grey."""
CONFIDENCE = 1.96
"""Standard errors on either side of a 95% interval."""
MAXIMUM_EPOCHS = 4
"""Repeating text more often costs quality (Muennighoff et al., 2023, arXiv 2305.16264)."""


@dataclass(frozen=True)
class SourceView:
    """One source; None stands for what the run's files don't say (yet)."""

    index: int
    """Place in the files' lists."""
    name: str
    weight: float
    stderr: float | None
    tokens: int | None
    proportional: float | None
    """Its share of all tokens."""
    epochs: float | None
    """How often it is read at the run's own token budget."""
    drawn: float | None
    """Share of the sequences that the run drew from it."""
    colour: int | None
    score: float | None = None
    score_stderr: float | None = None
    advantage: float | None = None
    """Score minus the mixture's average score."""
    signal_to_noise: float | None = None
    """Advantage in standard errors of the score, with its sign."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """95%, cut to [0, 1]."""
        if self.stderr is None:
            return None
        reach = CONFIDENCE * self.stderr
        return max(0.0, self.weight - reach), min(1.0, self.weight + reach)

    @property
    def lasts(self) -> float | None:
        """Training tokens after which the source has been read MAXIMUM_EPOCHS times."""
        if self.tokens is None or self.weight <= 0:
            return None
        return MAXIMUM_EPOCHS * self.tokens / self.weight


@dataclass(frozen=True)
class Mixture:
    """The sources with the weights that the report presents."""

    sources: list[SourceView]
    """In the files' order."""
    final: bool
    """False while the run is in progress: the weights are the latest ones."""
    is_training: bool
    """A training run with a fixed mixture; nothing was searched."""

    @cached_property
    def ranked(self) -> list[SourceView]:
        """By falling weight."""
        return sorted(self.sources, key=lambda source: (-source.weight, source.index))

    @property
    def leaders(self) -> list[SourceView]:
        """The heaviest sources that make up half of the mixture, three at most."""
        leaders: list[SourceView] = []
        for source in self.ranked[:3]:
            if sum(each.weight for each in leaders) >= 0.5:
                break
            leaders.append(source)
        return leaders

    @property
    def uniform(self) -> float:
        return 1 / len(self.sources)

    @property
    def has_errors(self) -> bool:
        return any(source.stderr is not None for source in self.sources)


def view_mixture(run: Run) -> Mixture | None:
    """None as long as a run has nothing to say about its mixture."""
    weights = current_weights(run)
    if weights is None:
        return None
    count = len(run.names)
    files = run.mixture.sources if run.mixture else []
    tokens = [each.tokens for each in files] if files else [None] * count
    known = [number for number in tokens if number is not None]
    total = sum(known) if len(known) == count else 0
    errors = [each.stderr for each in files] if files else [0.0] * count
    # A method that cannot estimate errors writes zeros.
    estimated = any(error > 0 for error in errors)
    drawn = run.steps[-1].source_count if run.steps else []
    ranks = sorted(range(count), key=lambda index: (-weights[index], index))
    last = run.history[-1] if run.history else None
    noise = signal_to_noise(last) if last else [None] * count
    average = mixture_average(last) if last else 0.0
    sources = []
    for index, name in enumerate(run.names):
        rank = ranks.index(index)
        number = tokens[index]
        seen = last is not None and (last.score_stderr[index] > 0 or last.scores[index] != 0)
        sources.append(
            SourceView(
                index=index,
                name=name,
                weight=weights[index],
                stderr=errors[index] if estimated else None,
                tokens=number,
                proportional=number / total if number is not None and total else None,
                epochs=files[index].epochs_at_budget if files else None,
                drawn=drawn[index] / sum(drawn) if sum(drawn) else None,
                colour=rank if rank < COLOURS else None,
                score=last.scores[index] if last and seen else None,
                score_stderr=last.score_stderr[index] or None if last and seen else None,
                advantage=last.scores[index] - average if last and seen else None,
                signal_to_noise=noise[index],
            )
        )
    return Mixture(sources, final=run.mixture is not None, is_training=is_training(run))


def current_weights(run: Run) -> list[float] | None:
    """[S] the result, or the latest mixture of a search in progress, or the first one."""
    if run.mixture is not None:
        return [source.weight for source in run.mixture.sources]
    if run.history:
        return run.history[-1].mixture
    return configured_weights(run, run.setting("mixture")) if is_training(run) else None


def is_training(run: Run) -> bool:
    """Whether nothing is searched. A run in progress shows it by having no outer steps in time."""
    if run.mixture is not None:
        return run.mixture.search.get("method") == "fixed"
    if run.history or not run.steps:
        return False
    late = (run.setting("train", "steps") or 0) // 2
    first = (run.setting("search", "warmup") or late) + (run.setting("search", "every") or 0)
    return run.steps[-1].step > first


def initial_weights(run: Run) -> list[float] | None:
    """[S] the mixture before the first outer step, if the files tell."""
    given = run.setting("search", "initial")
    if run.mixture is not None and given in ("auto", "bigram", "token_pairs"):
        reused = "reuse" in run.mixture.search
        given = run.mixture.search.get("first_mixture", None if reused else "uniform")
    return configured_weights(run, given)


def configured_weights(run: Run, given: object) -> list[float] | None:
    count = len(run.names)
    if given == "uniform":
        return [1 / count] * count
    if given == "proportional" and run.mixture is not None:
        tokens = [source.tokens or 0 for source in run.mixture.sources]
        return [number / sum(tokens) for number in tokens] if all(tokens) else None
    if isinstance(given, dict) and set(given) == set(run.names):
        return [float(given[name]) for name in run.names]
    return None


def mixture_average(row: OuterStep) -> float:
    """The mixture's average score: sources above it gain weight, those below lose."""
    return sum(weight * score for weight, score in zip(row.mixture, row.scores, strict=True))


def signal_to_noise(row: OuterStep) -> list[float | None]:
    """[S] (score - mixture's average) / standard error; None without a standard error."""
    average = mixture_average(row)
    return [
        (score - average) / error if error > 0 else None
        for score, error in zip(row.scores, row.score_stderr, strict=True)
    ]


def told_apart(mixture: Mixture) -> tuple[list[SourceView], list[SourceView], list[SourceView]]:
    """Sources above, below, and not told apart from an even share by two standard errors."""
    groups: tuple[list[SourceView], list[SourceView], list[SourceView]] = ([], [], [])
    for source in mixture.ranked:
        distance = source.weight - mixture.uniform
        clear = source.stderr is not None and abs(distance) > 2 * source.stderr
        groups[2 if not clear else 0 if distance > 0 else 1].append(source)
    return groups
