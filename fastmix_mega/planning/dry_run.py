"""Two steps of one rank of the user's own run, at any world size, without a GPU.

    fastmix plan CONFIG --gpus 1024 --dry-run [--rank 7] [key.path=value ...]

The real engine (DeepSpeed, megatron-core, the scores) runs under torch's FakeTensorMode with its
fake process group. What a formula can only say is seen here: whether the layout runs, and the peak
of what its tensors take. Kernels' own workspaces, CUDA's context, NCCL's buffers and fragmentation
are not seen. As many micro-batches are run as can be under way at once; more take no more memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastmix_mega.config.schema import Config
from fastmix_mega.configuration import parse_config
from fastmix_mega.errors import RunFailed, UserError
from fastmix_mega.methods.base import Method
from fastmix_mega.methods.gradients import GradientMethod
from fastmix_mega.methods.losses import LossMethod
from fastmix_mega.methods.registry import method_of
from fastmix_mega.model.presets import ModelShape
from fastmix_mega.training.engine.observation import Observation, SequenceLosses, scores_of

STEPS = 2
"""The second one has Adam's moments, and in a search the direction v."""
TARGET_MICRO_BATCHES = 2


@dataclass(frozen=True)
class DryRun:
    """What one rank needed."""

    rank: int
    place: dict[str, int]
    """Its rank in each kind of parallelism."""
    parts: dict[str, float]
    """Bytes at the peak, by part (see `planning/fake_memory.py`)."""
    micro_batches: int
    collectives: dict[str, int]

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def ranks_to_run(config: Config, gpus: int) -> list[int]:
    """Ranks that may need most: of the first and of the last pipeline stage."""
    stage = gpus // config.parallel.pipeline
    return sorted({0, gpus - stage})


def dry_runs(config: Config, gpus: int, mode: str, ranks: Sequence[int]) -> list[DryRun]:
    """Run some ranks, each in a process of its own.

    Args:
        config: the run; its data need not be there if `model.vocab_size` is given.
        gpus: of the whole run.
        mode: `search` or `train`.
        ranks: which to run.

    Raises:
        RunFailed: if the layout fails on one of them, with its traceback.
        UserError: if there is no such rank.
    """
    for rank in ranks:
        if not 0 <= rank < gpus:
            raise UserError(f"--rank must be from 0 to {gpus - 1}")
    return [_in_process(config, gpus, mode, rank) for rank in ranks]


def _in_process(config: Config, gpus: int, mode: str, rank: int) -> DryRun:
    # Fake tensors are on the CPU, and the same on a machine with GPUs.
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    with tempfile.TemporaryDirectory(prefix="fastmix-dry-run-") as folder:
        path, output = Path(folder) / "config.json", Path(folder) / "found.json"
        path.write_text(json.dumps(config.model_dump(mode="json")))
        command = [sys.executable, "-m", "fastmix_mega.planning.dry_run", str(path), str(output)]
        command += [str(gpus), str(rank), mode]
        done = subprocess.run(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        if done.returncode or not output.exists():
            raise RunFailed(f"the dry run of rank {rank} failed:\n{done.stdout[-6000:]}")
        return DryRun(**json.loads(output.read_text()))


def method_that_runs(config: Config, mode: str) -> tuple[Method, str]:
    """The method, and the mode of the runs that train its models.

    Raises:
        UserError: if it trains none.
    """
    method = method_of(config, "train" if mode == "train" else "search")
    if not method.trains:
        raise UserError(f"method: {config.method} trains nothing; there is nothing to run")
    return (method, mode) if method.own_run else (method_of(config, "train"), "train")


def observed(method: Method) -> Observation | None:
    """What the engine watches, as far as the configuration says it without the data."""
    if isinstance(method, GradientMethod):
        return scores_of(method.scores)
    return SequenceLosses() if isinstance(method, LossMethod) else None


def run_rank(config: Config, shape: ModelShape, gpus: int, mode: str, rank: int) -> DryRun:
    """Be one rank; for a process that does nothing else."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    from fastmix_mega.planning import fake_gpu
    from fastmix_mega.planning.fake_memory import FakeMemory
    from fastmix_mega.training.engine.engine import TrainingEngine

    method, _ = method_that_runs(config, mode)
    config = _shortened(method.config, gpus)
    layout = fake_gpu.enter(config.parallel, gpus, rank)
    memory = FakeMemory(shape.vocab_size // config.parallel.tensor)
    with FakeTensorMode(allow_non_fake_inputs=True), memory:
        engine = TrainingEngine(config, shape, layout, len(config.sources), observed(method))
        step = _Steps(config, engine, memory)
        for number in range(STEPS):
            step.run(number)
    names = ("data", "tensor", "pipeline", "context")
    return DryRun(
        rank=rank,
        place={name: getattr(layout, name).rank for name in names},
        parts=dict(memory.peak),
        micro_batches=engine.micro_batches_per_step,
        collectives=dict(memory.collectives),
    )


def _shortened(config: Config, gpus: int) -> Config:
    """With no more micro-batches than can be under way at once."""
    parallel, train = config.parallel, config.train
    model = parallel.tensor * parallel.pipeline * parallel.context
    unit = train.micro_batch * (gpus // model)
    enough = 2 * parallel.pipeline
    batch = min(train.global_batch, unit * enough)
    return config.model_copy(update={"train": train.model_copy(update={"global_batch": batch})})


class _Steps:
    """Training steps with micro-batches that hold nothing, and what their tensors are for."""

    def __init__(self, config: Config, engine: Any, memory: Any) -> None:
        self._config, self._engine, self._memory = config, engine, memory
        module = engine.deepspeed.module
        memory.assign("parameters", module.parameters())
        self._assign_optimizer()
        for parameter in module.parameters():
            parameter.register_post_accumulate_grad_hook(self._assign_gradient)
        optimizer = engine.deepspeed.optimizer
        # DeepSpeed's own fp32 copies of gradients live as long as the run.
        for group in getattr(optimizer, "fp32_groups_gradients_flat", []):
            memory.assign("gradients", [group])
        self._update, engine.deepspeed.step = engine.deepspeed.step, self._step

    def run(self, number: int) -> None:
        """One outer and one training step; the peak is that of the last one."""
        engine, memory = self._engine, self._memory
        memory.forget_peak()
        if number and engine.meter is not None:
            # Twice: the last v is kept while the next one is made.
            for _ in range(2):
                memory.forget_peak()
                with memory.part("activations"):
                    self._measure_target(number)
                memory.assign("direction", _tensors_of(engine.meter.state()["directions"]))
        with memory.part("activations"):
            engine.train_step(number, self._micro_batches(engine.micro_batches_per_step))
        self._assign_optimizer()

    def _measure_target(self, number: int) -> None:
        config, layout = self._config, self._engine.layout
        targets = len(config.targets)
        unit = config.train.micro_batch * layout.data.size
        group = layout.pipeline.size if layout.sizes["interleave"] > 1 else 1
        count = min(TARGET_MICRO_BATCHES, max(1, config.search.target_batch // unit))
        batches = self._micro_batches(-(-count // group) * group)
        import numpy as np

        self._engine.measure_target(number, batches, np.ones(targets), [1] * targets)

    def _micro_batches(self, count: int) -> list[Any]:
        import torch

        from fastmix_mega.training.engine.batches import MicroBatch

        train = self._config.train
        size = (train.micro_batch, train.seq_length + 1)
        return [
            MicroBatch(
                torch.zeros(size, dtype=torch.int64),
                torch.zeros(size[0], dtype=torch.int64),
                torch.ones(size[0]),
            )
            for _ in range(count)
        ]

    def _step(self, *given: Any, **named: Any) -> Any:
        with self._memory.part("buffers"):
            return self._update(*given, **named)

    def _assign_gradient(self, parameter: Any) -> None:
        self._memory.assign("gradients", [parameter.grad])

    def _assign_optimizer(self) -> None:
        inner = self._engine.deepspeed.optimizer.optimizer
        held = [tensor for group in inner.param_groups for tensor in group["params"]]
        parameters = {id(each) for each in self._engine.deepspeed.module.parameters()}
        self._memory.assign("optimizer", [each for each in held if id(each) not in parameters])
        for state in inner.state.values():
            self._memory.assign("optimizer", _tensors_of(state))


def _tensors_of(tree: Any) -> list[Any]:
    import torch
    from torch.utils._pytree import tree_leaves

    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for name in ("config", "output"):
        parser.add_argument(name, type=Path)
    for name in ("gpus", "rank"):
        parser.add_argument(name, type=int)
    parser.add_argument("mode")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    from fastmix_mega.model.engine_trial import hide_if_broken
    from fastmix_mega.planning.describe import planned_shape

    config = parse_config(json.loads(options.config.read_text()), where=str(options.config))
    try:
        hide_if_broken()
        shape = planned_shape(config)
        found = run_rank(config, shape, options.gpus, options.mode, options.rank)
    except Exception:
        traceback.print_exc()
        return 1
    options.output.write_text(json.dumps(asdict(found)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
