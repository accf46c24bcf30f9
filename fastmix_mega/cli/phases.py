"""`fastmix search` on a configuration with `phases`: one search a phase, and the trunk between.

RUN/phase_NAME is the search of a phase, an ordinary run folder. RUN/trunk_NAME is the proxy trained
on the mixture that was found, from where the phase began: the next phase's search starts at its
end. RUN/mixture.json is the plan.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmix_mega.cli import launch
from fastmix_mega.cli.seeds import search_one
from fastmix_mega.errors import UserError
from fastmix_mega.training.run_lock import run_lock
from fastmix_mega.training.seed_folders import require_a_parent

if TYPE_CHECKING:
    from fastmix_mega.config.phases import PhaseConfig
    from fastmix_mega.config.schema import Config
    from fastmix_mega.mixture.file import MixtureFile
    from fastmix_mega.planning.check import Findings

FEWEST_WINDOWS = 20
"""Of scores, that a phase has if its steps allow it; and ten of each target."""
Main = Callable[[Sequence[str]], int]


def search_phases(
    main: Main, config_path: str, overrides: Sequence[str], numbers: tuple[int, int], config: Config
) -> int:
    """Search every phase from the trunk of the one before, then write the plan.

    What is finished is kept, and an interrupted phase goes on.

    Returns:
        The exit code: that of the first run that did not end well.

    Raises:
        UserError: if a phase cannot be searched; before any is.

    Args:
        main: the command, for the processes of the runs.
        config_path: of the configuration.
        overrides: of it.
        numbers: of every run's processes, and of its restarts within an hour, after failures.
        config: the same, with the overrides.
    """
    from fastmix_mega.mixture.file import read_mixture
    from fastmix_mega.mixture.phase_plan import Phase, describe_plan, plan_of

    folder = Path(config.run_dir)
    require_a_parent(folder)
    require_sound_phases(config_path, overrides, config, numbers[0])
    with run_lock(folder, "fastmix search"):
        start, found, cost = config.init_from, [], 0.0
        read = _read_at_first(config)
        for phase in config.phases:
            if phase.init_from is not None:
                start, read = phase.init_from, {}  # Another model's reading is not known.
            print(f"phase {phase.name}: from {start or 'new weights'}", flush=True)
            own = [*overrides, *phase_words(config, phase, start, read)]
            run = folder / f"phase_{phase.name}"
            words = [*own, _word("run_dir", str(run))]
            code = search_one(main, config_path, words, *numbers)
            if code != 0:
                return code
            mixture = read_mixture(run / "mixture.json")
            cost += mixture.search.get("cost_in_proxy_runs", 1.0)
            found.append(Phase(phase.name, phase.tokens, mixture, run.name))
            read = _read_with(read, phase.tokens, mixture)
            if any(each.init_from is None for each in config.phases[len(found) : len(found) + 1]):
                trunk = folder / f"trunk_{phase.name}"
                words = [*own, *_trunk_words(mixture, trunk)]
                code = _train_trunk(main, config_path, words, *numbers)
                if code != 0:
                    return code
                start, cost = str(trunk), cost + 1.0
        plan = plan_of(found, cost)
        plan.write(folder / "mixture.json")
    print("\n".join([*describe_plan(plan), f"plan: {folder / 'mixture.json'}"]))
    return 0


def require_sound_phases(
    config_path: str, overrides: Sequence[str], config: Config, processes: int
) -> None:
    """Look for every phase's mistakes before any run. Raises: UserError."""
    from fastmix_mega.planning.check import require_no_mistakes

    for name, own, findings in check_phases(config_path, overrides, config, processes):
        if not (Path(own.run_dir) / "run.json").exists():
            try:
                require_no_mistakes(findings)
            except UserError as error:
                raise UserError(f"phase {name}: {error}") from None


def show_phases(config_path: str, overrides: Sequence[str], config: Config, processes: int) -> int:
    """`fastmix check` of every phase; returns the exit code."""
    from fastmix_mega.planning.check import describe

    code = 0
    for name, own, findings in check_phases(config_path, overrides, config, processes):
        print(f"phase {name}:\n{describe(own, findings)}")
        code = 2 if findings.mistakes else code
    return code


def check_phases(
    config_path: str, overrides: Sequence[str], config: Config, processes: int
) -> Iterator[tuple[str, Config, Findings]]:
    """Every phase by name, with its configuration and what is found in it."""
    from fastmix_mega.configuration import load_config
    from fastmix_mega.planning.check import check

    for phase in config.phases:
        words = [*overrides, *phase_words(config, phase, phase.init_from, {})]
        words.append(_word("run_dir", str(Path(config.run_dir) / f"phase_{phase.name}")))
        if phase.init_from is None and phase is not config.phases[0]:
            # Its trunk is not there yet, but it will start from trained weights.
            warmup = config.search.surface_warmup(_steps(config, phase), trained=True)
            words.append(_word("search.warmup", warmup))
        own = load_config(config_path, words)
        yield phase.name, own, check(own, processes)


def phase_words(
    config: Config, phase: PhaseConfig, start: str | None, read: dict[str, int]
) -> list[str]:
    """The overrides of a phase's search, but for its run folder.

    Args:
        config: of all phases.
        phase: which one.
        start: where it starts; None for new weights.
        read: tokens of each source that the large run has read before.
    """
    limits = phase.constraints or config.search.constraints
    given = {} if limits is None else limits.model_dump(mode="json", exclude_unset=True)
    own: dict[str, Any] = {
        "phases": [],
        "search.constraints": given | {"budget_tokens": phase.tokens, "read_tokens": read},
        "init_from": start,
    }
    if phase.targets:
        own["targets"] = [
            each.model_dump(mode="json", exclude_unset=True) for each in phase.targets
        ]
    if phase.steps is not None:
        own["train.steps"] = phase.steps
    if phase.schedule is not None:
        own["train.schedule"] = phase.schedule.model_dump(mode="json", exclude_unset=True)
    if config.search.wants_surface:
        own["search.every"] = _every(config, phase)
    return [_word(key, value) for key, value in own.items()]


def _steps(config: Config, phase: PhaseConfig) -> int:
    return phase.steps or config.train.steps


def _every(config: Config, phase: PhaseConfig) -> int:
    """Steps between two looks at the targets: fewer in a phase that is too short for its scores."""
    from fastmix_mega.mixture.advantage import FEW_OUTER_STEPS

    search, steps = config.search, _steps(config, phase)
    trained = phase is not config.phases[0] or bool(phase.init_from or config.init_from)
    scored = steps - search.surface_warmup(steps, trained)
    targets = len(phase.targets or config.targets)
    wanted = max(FEWEST_WINDOWS, FEW_OUTER_STEPS * targets)
    return max(1, min(search.every, scored // wanted))


def _read_at_first(config: Config) -> dict[str, int]:
    limits = config.search.constraints
    return {} if limits is None else dict(limits.read_tokens)


def _read_with(read: dict[str, int], tokens: int, mixture: MixtureFile) -> dict[str, int]:
    """Tokens by source, after so many more of a mixture."""
    return {
        source.name: read.get(source.name, 0) + round(tokens * source.weight)
        for source in mixture.sources
    }


def _trunk_words(mixture: MixtureFile, folder: Path) -> list[str]:
    own = {
        "mixture": mixture.weights,
        "run_dir": str(folder),
        "checkpoint.final": True,
        "stages": [],
    }
    return [_word(key, value) for key, value in own.items()]


def _train_trunk(
    main: Main, config_path: str, words: Sequence[str], processes: int, restarts: int
) -> int:
    """Returns the exit code; 0 if it was trained before."""
    from fastmix_mega.configuration import load_config
    from fastmix_mega.methods.fixed import finished_before
    from fastmix_mega.planning.check import check, require_no_mistakes

    config = load_config(config_path, words)
    if finished_before(config):
        return 0
    require_no_mistakes(check(config, processes, "train"))
    print(f"trunk: the proxy on this mixture, in {config.run_dir}", flush=True)
    healing = launch.Healing(config.run_dir, restarts)
    return launch.run_processes(main, ["train", config_path, *words], processes, healing=healing)


def _word(key: str, value: object) -> str:
    return f"{key}={json.dumps(value, ensure_ascii=False)}"
