"""The mixture of `fastmix train`: given, and changed by schedule alone. Not a way to find one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastmix_mega.config.parse import validated
from fastmix_mega.config.schema import Config
from fastmix_mega.data.sampler import MixtureSampler
from fastmix_mega.errors import UserError
from fastmix_mega.files import write_json
from fastmix_mega.methods.base import Method, OpenedData, Preview
from fastmix_mega.methods.result import Answer, mixture_file
from fastmix_mega.mixture.controller import MixtureEstimate
from fastmix_mega.mixture.file import MixtureFile, read_mixture
from fastmix_mega.mixture.sampling import MixturePolicy
from fastmix_mega.mixture.stages import Stage, average_mixture, resolve_stages, stage_at
from fastmix_mega.resumable import Resumable
from fastmix_mega.training.identity import differences
from fastmix_mega.training.run import Run, Verb


class FixedMixture(Method):
    """`mixture`, and after it those of `stages`."""

    name = "fixed"
    verb: Verb = "train"

    @classmethod
    def objections(cls, config: Config) -> Iterator[str]:
        del config
        return iter(())

    def preview(self, data: OpenedData) -> Preview:
        stages = resolve_stages(self.config, data.tokens)
        return Preview(average_mixture(stages, self.config.train.steps))

    def mixer(self, run: Run) -> StagedMixture:
        tokens = [source.num_tokens for source in run.inputs.sources]
        return StagedMixture(resolve_stages(run.config, tokens), run.sampler)

    def conclude(self, run: Run, mixer: StagedMixture, steps: int) -> tuple[MixtureFile, list[str]]:
        weights = average_mixture(mixer.stages, run.config.train.steps)
        estimate = MixtureEstimate(weights, np.zeros_like(weights))
        answer = Answer(self.name, estimate, cost=self.cost(run, 0, steps), warnings=[])
        rows = share_rows(run.config.source_names, mixer, run.config.train.steps)
        write_json(Path(run.config.run_dir) / "shares.json", rows)
        return mixture_file(run, answer, steps), [share_table(rows)]


class StagedMixture(Resumable):
    """Sets a mixture that changes at known steps (see `training.run.Mixer`).

    Args:
        stages: of the run, in order.
        sampler: counts what is drawn.
    """

    resumes = ("drawn_at",)
    outer_step = 0
    finished = False

    def __init__(self, stages: Sequence[Stage], sampler: MixtureSampler) -> None:
        self.stages = list(stages)
        self.sampler = sampler
        self.drawn_at: list[NDArray[np.int64]] = []
        """Per stage that has begun: [S] samples drawn before it."""

    @property
    def policy(self) -> MixturePolicy:
        return MixturePolicy(self.stages[max(0, len(self.drawn_at) - 1)].mixture)

    def before_step(self, step: int) -> None:
        if stage_at(self.stages, step) == len(self.drawn_at):
            self.drawn_at.append(self.sampler.drawn.copy())

    def after_step(self, step: int) -> dict[str, Any] | None:
        del step
        return None

    def state(self) -> dict[str, Any]:
        return {"drawn_at": list(self.drawn_at)}


def share_rows(names: Sequence[str], mixer: StagedMixture, steps: int) -> list[dict[str, Any]]:
    """Requested and observed token shares of every source, for every stage and for the whole run.

    Args:
        names: of the sources.
        mixer: of the finished run.
        steps: of the whole run.
    """
    rows = []
    drawn = mixer.sampler.drawn
    ends = [*mixer.drawn_at[1:], drawn]
    for stage, before, after in zip(mixer.stages, mixer.drawn_at, ends, strict=True):
        rows += _rows(names, stage, after - before)
    if len(mixer.stages) > 1:
        whole = Stage("all", 0, average_mixture(mixer.stages, steps))
        rows += _rows(names, whole, drawn)
    return rows


def share_table(rows: Sequence[dict[str, Any]]) -> str:
    """For people."""
    wide = max(6, *(len(row["source"]) for row in rows))
    lines = [f"{'stage':<8}  {'source':<{wide}}  requested  observed  difference"]
    lines += [
        f"{row['stage']:<8}  {row['source']:<{wide}}  {row['requested']:9.3%}  "
        f"{row['observed']:8.3%}  {row['observed'] - row['requested']:+10.3%}"
        for row in rows
    ]
    return "\n".join(lines)


def _rows(names: Sequence[str], stage: Stage, drawn: NDArray[np.int64]) -> list[dict[str, Any]]:
    total = max(1, int(drawn.sum()))
    return [
        {
            "stage": stage.name,
            "source": name,
            "requested": float(share),
            "observed": int(count) / total,
            "samples": int(count),
        }
        for name, share, count in zip(names, stage.mixture, drawn, strict=True)
    ]


def run_of_a_search(config: Config, changes: dict[str, Any]) -> Config:
    """The configuration of a training that a search makes in a folder below its own.

    Args:
        config: of the search.
        changes: to its plain data, `run_dir` and `mixture` among them.
    """
    given = config.model_dump(mode="json")
    common: dict[str, Any] = {
        "method": "fastmix",
        "stages": [],
        "targets": [],
        "search": {},
        "log": given["log"] | {"wandb": "disabled"},
    }
    return validated(given | common | changes, type(config), f"the run in {changes['run_dir']}")


def finished_before(run: Config) -> bool:
    """Whether a run that belongs to a search is finished.

    Raises:
        UserError: if its folder holds another run.
    """
    path = Path(run.run_dir) / "mixture.json"
    if path.is_file():
        if read_mixture(path).search.get("config_sha256") != run.fingerprint():
            raise UserError(f"{run.run_dir} holds another run; name another run_dir")
        return True
    for difference in differences(run, "train"):
        raise UserError(f"{run.run_dir} holds another run: {difference.text}; name another run_dir")
    return False
