"""`method: fastmix`: one proxy run, and the mixture that its evidence supports.

FastMix (arXiv 2606.14971). By default the run trains on one broad mixture, and the answer is the
best mixture of a loss surface (`surface_evidence.py`). As a trajectory, scores move the mixture
that the run trains on, by a rule of lower noise than the paper's
(`mixture/exponentiated_gradient.py`), with limits and ratios that stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmix_mega.config.schema import Config
from fastmix_mega.data.rows import Source, any_masked
from fastmix_mega.data.run_inputs import Inputs
from fastmix_mega.errors import UserError
from fastmix_mega.methods.base import (
    OpenedData,
    Preview,
    given_initial,
    target_weights,
)
from fastmix_mega.methods.gradients import GradientMethod, too_short
from fastmix_mega.methods.result import Answer
from fastmix_mega.methods.run_evidence import read_runs
from fastmix_mega.methods.start import (
    LIMITS,
    STEP,
    STEP_FROM_BIGRAMS,
    SearchStart,
    begins_with_bigrams,
    bigram_mixture_together,
    budget_tokens,
    may_begin_with_bigrams,
    search_start,
)
from fastmix_mega.methods.surface_evidence import (
    bigram_warnings,
    evidence_record,
    register_predictions,
    surface_controller,
    write_run_surface,
)
from fastmix_mega.mixture.advantage import CONFIDENT, FEW_OUTER_STEPS, few_outer_steps
from fastmix_mega.mixture.constraints.apply import Constrained, ConstraintSet, Sources
from fastmix_mega.mixture.controller import MixtureEstimate
from fastmix_mega.mixture.exponentiated_gradient import (
    ExponentiatedGradient,
    Repetition,
    RuleSettings,
)
from fastmix_mega.mixture.file import MixtureFile
from fastmix_mega.mixture.outer_schedule import Schedule
from fastmix_mega.mixture.sampling import MixturePolicy
from fastmix_mega.mixture.surface import SIGMAS, LossSurface
from fastmix_mega.mixture.surface_controller import SurfaceController
from fastmix_mega.training.engine.observation import Observation, scores_of
from fastmix_mega.training.run import Run

if TYPE_CHECKING:
    from fastmix_mega.parallel.layout import Layout
    from fastmix_mega.training.observers import TargetGradients
    from fastmix_mega.training.outer_loop import OuterLoop

TOLD_DISAGREEMENTS = 8
"""Between the kinds of evidence, in the terminal."""


class FastMix(GradientMethod):
    """See the module's docstring."""

    name = "fastmix"
    start: SearchStart
    """Known once `mixer` was called."""

    @classmethod
    def objections(cls, config: Config) -> Iterator[str]:
        del config
        return iter(())

    @classmethod
    def fix(cls, config: Config) -> Config:
        """A surface looks at one target at a time, and at the body's gradients."""
        search = config.search
        surface = search.wants_surface
        update: dict[str, Any] = {"scores": search.scores or ("body" if surface else "head")}
        if surface:
            update["target_scores"] = 0.0
        return config.model_copy(update={"search": search.model_copy(update=update)})

    def takes_surface(self, sources: Sequence[Source], targets: Sequence[Source]) -> bool:
        """Whether the answer comes from a loss surface."""
        search = self.config.search
        text = not any_masked([*sources, *targets])
        return search.wants_surface and (text or search.answer == "surface")

    def observes(self, layout: Layout, inputs: Inputs) -> Observation | None:
        # Conversations of a search that says nothing else are scored at the head.
        if self.given.search.scores is None and not self.takes_surface(
            inputs.sources, inputs.targets
        ):
            return scores_of("head")
        return super().observes(layout, inputs)

    # Before a run.

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if not self._warmup_waits_for_data():
            yield from self.length_problems(self.schedule(self.config.search.warmup_steps()))

    def preview(self, data: OpenedData) -> Preview:
        """All but the bigram statistics: reading them is left to the search, and uniform stands
        for their mixture."""
        config, search = self.config, self.config.search
        if self.takes_surface(data.sources, data.targets):
            return self._preview_surface(data)
        if search.evidence:
            raise UserError(
                "search.evidence: runs are evidence of a loss surface; set search.answer: surface"
            )
        bigrams = None
        if begins_with_bigrams(config, data.sources, data.targets):
            bigrams = np.full(len(data.sources), 1 / len(data.sources))
        start = search_start(config, data, bigrams)
        found = Preview(start.initial)
        if start.from_bigrams:
            found.when = "at uniform, before it has read bigram statistics"
            found.facts.append(
                "the search begins with the mixture that bigram statistics suggest (search.initial)"
            )
        if start.reuse is not None:
            found.facts += start.reuse.lines(search, config.train.steps)
            found.warnings += [f"search.reuse: {note}" for note in start.reuse.notes]
        limits = search.constraints
        if limits is not None and limits.budget_tokens is not None and start.limited is not None:
            found.facts.append(
                f"epochs at {limits.budget_tokens:,} tokens, at the initial mixture: "
                + epochs_by_source(config.source_names, start.limited.epochs)
            )

        schedule = self.schedule(self._warmup(start))
        if self._warmup_waits_for_data():
            found.mistakes += self.length_problems(schedule)
        found.facts.append(
            f"{schedule.outer_steps:,} outer steps, the first after step "
            f"{schedule.warmup:,} of {config.train.steps:,}"
        )
        if 0 < schedule.outer_steps < FEW_OUTER_STEPS:
            found.warnings.append(few_outer_steps(schedule.outer_steps, "will be"))
        return found

    def _preview_surface(self, data: OpenedData) -> Preview:
        config = self.config
        found = Preview(given_initial(config, data), "while it trains")
        self._limits(data)
        schedule = self.schedule(self._surface_warmup())
        if self._warmup_waits_for_data():
            found.mistakes += super().length_problems(schedule)
        self._preview_evidence(data, found)
        windows, targets = schedule.outer_steps, len(config.targets)
        if 0 < windows < targets:
            found.mistakes.append(
                f"search: {windows} windows of scores are fewer than the {targets} targets, each "
                "of which needs one; search for more steps, or set search.every lower"
            )
        elif 0 < windows < FEW_OUTER_STEPS * targets:
            found.warnings.append(
                f"only {windows} windows of scores for {targets} target(s): search for more steps, "
                "or set search.every lower"
            )
        found.facts.append(
            f"the answer comes from a loss surface: {schedule.outer_steps:,} windows of scores "
            f"({self.scores}), the first after step {schedule.warmup:,} of "
            f"{config.train.steps:,}, and n-gram statistics"
        )
        return found

    def _preview_evidence(self, data: OpenedData, found: Preview) -> None:
        if not self.config.search.evidence:
            return
        try:
            runs = read_runs(self.config.search.evidence, self.config, data.tokenizer_sha256)
        except UserError as error:
            found.mistakes += str(error).splitlines()
            return
        found.facts += runs.facts
        found.warnings += runs.warnings

    def _surface_warmup(self) -> int:
        config = self.config
        return config.search.surface_warmup(config.train.steps, config.init_from is not None)

    def _limits(self, data: OpenedData) -> ConstraintSet | None:
        """Raises: UserError if no mixture keeps to them."""
        limits = self.config.search.constraints
        if limits is None:
            return None
        found = ConstraintSet(limits, Sources(self.config.source_names, data.tokens), LIMITS)
        found.apply(np.full(len(data.sources), 1 / len(data.sources)))
        return found

    def length_problems(self, schedule: Schedule) -> Iterator[str]:
        if schedule.outer_steps == 0 and self._warmup_waits_for_data():
            # Half of a longer run is a longer warm-up, too.
            yield too_short(self.config.train.steps, schedule.warmup, 2 * schedule.window)
        else:
            yield from super().length_problems(schedule)

    def _warmup_waits_for_data(self) -> bool:
        """Whether the length of the warm-up is known only once the sources are open."""
        search = self.config.search
        return search.warmup is None and (
            search.wants_surface or may_begin_with_bigrams(self.config)
        )

    def _warmup(self, start: SearchStart) -> int:
        steps = self.config.train.steps if start.from_bigrams else None
        return self.config.search.warmup_steps(steps)

    # The run.

    def mixer(self, run: Run) -> OuterLoop[TargetGradients]:
        from fastmix_mega.training.outer_loop import OuterLoop

        config, search = run.config, run.config.search
        data = OpenedData(run.inputs.sources, run.inputs.targets, run.inputs.tokenizer.sha256)
        if self.takes_surface(data.sources, data.targets):
            return self._surface_mixer(run, data)
        self.start = start = search_start(config, data, bigram_mixture_together(run))
        schedule = self.schedule(self._warmup(start))
        tied = None if start.reuse is None else start.reuse.tied
        controller = None
        if run.layout.is_main:
            step = STEP_FROM_BIGRAMS if start.from_bigrams else STEP
            controller = ExponentiatedGradient(
                start.initial,
                RuleSettings(
                    step=step if search.step is None else search.step,
                    decay=search.decay,
                    prior_strength=search.prior_strength,
                    settles_at=search.stop_when_converged,
                ),
                project=None if start.constraints is None else start.constraints.project,
                tied=tied,
                repetition=Repetition(
                    budget_tokens(config) / np.array(data.tokens, np.float64), search.repetitions
                ),
            )
        explored = None if tied is None else tied.even_distribution
        policy = MixturePolicy(start.initial, search.exploration, explored)
        observer = self.observer(run, schedule)
        return OuterLoop(run.layout, schedule, observer, controller, policy)

    def _surface_mixer(self, run: Run, data: OpenedData) -> OuterLoop[TargetGradients]:
        from fastmix_mega.training.outer_loop import OuterLoop

        config = run.config
        reference, constraints = given_initial(config, data), self._limits(data)
        self.start = SearchStart(reference, constraints, None, None, from_bigrams=False)
        schedule = self.schedule(self._surface_warmup())
        observer = self.observer(run, schedule, in_turn=True)
        controller = None
        if run.layout.is_main:
            controller = surface_controller(
                config,
                run.inputs,
                reference,
                budget_tokens(config),
                schedule,
                observer,
                project=None if constraints is None else constraints.project,
            )
        policy = MixturePolicy(reference, config.search.exploration)
        return OuterLoop(run.layout, schedule, observer, controller, policy)

    # After a run.

    def conclude(self, run: Run, mixer: Any, steps: int) -> tuple[MixtureFile, list[str]]:
        from fastmix_mega.export.export import describe

        mixture, (*_, path) = super().conclude(run, mixer, steps)
        if isinstance(mixer.controller, SurfaceController):
            budget = budget_tokens(run.config)
            write_run_surface(run.config, run.inputs, mixer.controller, mixture, budget)
            register_predictions(run.config.run_dir, mixture)
            return mixture, [*describe(mixture, None), *_surface_lines(mixture), path]
        limits = self.config.search.constraints
        lines = describe(mixture, None if limits is None else limits.budget_tokens)
        if limits is not None:
            cost = mixture.search["predicted_cost_of_constraints"]
            lines.append(f"predicted cost of the constraints: {cost:+.4f} nats per token")
        return mixture, [*lines, path]

    def answer(self, run: Run, mixer: OuterLoop[TargetGradients], steps: int) -> Answer:
        found = super().answer(run, mixer, steps)
        if isinstance(mixer.controller, SurfaceController):
            record = evidence_record(self.config, mixer.controller, found.estimate.weights)
            targets = [target.name for target in self.config.targets]
            recorded, tokens = mixer.controller.recorded(), float(self.config.train.tokens)
            weak = bigram_warnings(targets, recorded, tokens)
            answer = replace(found, gains=None, more=record, warnings=[*found.warnings, *weak])
            record.update(self._constrained(answer, mixer.controller.surface()))
            return answer
        names, start = self.config.source_names, self.start
        if start.from_bigrams:
            begun = dict(zip(names, start.initial.tolist(), strict=True))
            found.more["first_mixture"] = begun
        found.more.update(self._constrained(found, None))
        reuse = self.config.search.reuse
        if start.reuse is not None and reuse is not None:
            tokens = run.tokens(steps)
            found.more["reuse"] = start.reuse.record(reuse.mixture, tokens, found.cost)
        return found

    def _constrained(self, answer: Answer, surface: LossSurface | None) -> dict[str, Any]:
        """What the limits of the search did: empty without any.

        Args:
            answer: without these fields.
            surface: which says what the limits cost; without one the gains do.
        """
        constraints, estimate = self.start.constraints, answer.estimate
        if constraints is None or estimate.free is None:
            return {}
        names = self.config.source_names
        found = constraints.apply(estimate.weights / estimate.weights.sum())
        effect = Constrained(estimate.free, found.weights, found.holding, found.epochs)
        if surface is None:
            assert answer.gains is not None
            cost = effect.predicted_cost(answer.gains.tolist())
        else:
            weights = target_weights(self.config)
            limited, _ = surface.objective(effect.weights, weights)
            free, _ = surface.objective(estimate.free, weights)
            cost = limited - free
        return {
            "constraints": constraints.constraints.model_dump(mode="json"),
            "unconstrained": dict(zip(names, estimate.free.tolist(), strict=True)),
            "limits_reached": effect.holding,
            "epochs_at_large_budget": dict(zip(names, effect.epochs, strict=True)),
            "predicted_cost_of_constraints": cost,
        }

    def warnings(self, estimate: MixtureEstimate, outer_steps: int) -> list[str]:
        found = super().warnings(estimate, outer_steps)
        uniform = 1 / len(estimate.weights)
        far = np.abs(estimate.weights - uniform) > 2 * estimate.standard_errors
        if self.config.search.step != 0 and not far.any():
            found.append(
                "No source's weight differs from uniform by more than two standard errors: the "
                "search was too short or too noisy to tell the sources apart."
            )
        # Near a good mixture all sources are worth the same next, so that scores cannot tell it
        # from its neighbours, nor from uniform: no evidence is asked of the small moves.
        unsure = estimate.better is not None and estimate.better < CONFIDENT
        if unsure and not self.start.from_bigrams:
            found.append(
                "The search was too short or too noisy to show that its mixture is better than the "
                f"one it began with: the probability is {estimate.better:.0%}, and "
                f"{CONFIDENT:.0%} is wanted. Search for more steps, or raise search.target_batch."
            )
        return found


def _surface_lines(mixture: MixtureFile) -> list[str]:
    """What is predicted, and where the evidence disagrees."""
    search = mixture.search
    predicted = search["predictions"]["answer"]
    lines = [
        f"predicted on {target}: {found['gain']:.3f} +- {SIGMAS * found['deviation']:.3f} nats "
        f"below the even mixture, at {predicted[target]['loss']:.3f} +- "
        f"{SIGMAS * predicted[target]['deviation']:.3f} (90%)"
        for target, found in search["predicted_gain"].items()
    ]
    told = search["disagreements"]
    lines += [f"warning: the evidence disagrees: {each}" for each in told[:TOLD_DISAGREEMENTS]]
    if len(told) > TOLD_DISAGREEMENTS:
        more = len(told) - TOLD_DISAGREEMENTS
        lines.append(f"warning: and {more} more sources, which the report marks")
    return lines


def epochs_by_source(names: Sequence[str], epochs: Sequence[float | None]) -> str:
    """In words, without sources whose epochs are not known."""
    return ", ".join(
        f"{name} {times:.3g}"
        for name, times in zip(names, epochs, strict=True)
        if times is not None
    )
