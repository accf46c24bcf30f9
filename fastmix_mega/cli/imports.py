"""Import a run's libraries without what this run may never use: most of a start is imports.

megatron-core decorates its fusions, and DeepSpeed an optimizer, with `torch.compile`, which imports
torch's compiler (Inductor, a quarter of all import time); here that waits for the first call. And
megatron-core imports wandb for its inference engine; a run that logs to wandb imports it later.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastmix_mega.model.engine_trial import hide_if_broken

DECORATED = (
    "megatron.core.models.gpt.gpt_layer_specs",
    "megatron.core.pipeline_parallel",
    "deepspeed.runtime.zero.muon.muon_optimizer",
)
WHOLE = (
    "fastmix_mega.training.trainer",
    "fastmix_mega.parallel.cpu",
    "fastmix_mega.parallel.mpu",
    "fastmix_mega.report.build",
    "deepspeed",
    "torch._dynamo",
)


def import_libraries() -> None:
    """Import all that training and searching need. A second call does nothing."""
    import torch

    if not torch.cuda.is_available():
        # Else DeepSpeed warns that it has found no accelerator.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if not sys.warnoptions:
        # What they say of optional packages and of their own future is for their developers;
        # `fastmix check` names the kernels that are used.
        for category in (UserWarning, FutureWarning, DeprecationWarning):
            warnings.filterwarnings("ignore", category=category, module=r"(megatron|deepspeed)\.")
            warnings.filterwarnings("ignore", category=category, module=r"torch\.distributed\.")
    hide_if_broken()
    with _compiled_when_called(), _absent("wandb"):
        for name in DECORATED:
            importlib.import_module(name)
    for name in WHOLE:
        importlib.import_module(name)


@contextmanager
def _compiled_when_called() -> Iterator[None]:
    """What `torch.compile` decorates while the block runs is compiled when it is first called."""
    import torch

    compile_now = torch.compile

    def compile_later(function: Callable[..., Any] | None = None, **options: Any) -> Any:
        if function is None:
            return functools.partial(compile_later, **options)
        compiled = functools.cache(lambda: compile_now(function, **options))
        return functools.wraps(function)(lambda *given, **named: compiled()(*given, **named))

    torch.compile = compile_later  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = compile_now


@contextmanager
def _absent(name: str) -> Iterator[None]:
    """An optional package that is not loaded yet looks as if it were not installed."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
