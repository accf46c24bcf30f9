"""Where a run waits for the GPU: `fastmix` on hostcuda, counting what keeps the host waiting.

    python -m tests.hostcuda.waits OUTPUT.json search CONFIG [key.path=value ...]

Counted are `torch.cuda.synchronize`, numbers read from the device (`.item()`, `bool`, `float`),
operators whose result's size only the device knows (`nonzero`, `unique`), and copies between the
host and the device that block. By phase of a step, with the place in the code.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

OURS = ("fastmix_mega/", "deepspeed/", "megatron/", "torch/optim")
SIZES = ("aten::nonzero", "aten::_unique2", "aten::unique_dim", "aten::masked_select")
PHASES = ("_train_step", "_log_step", "_evaluate")
OUTER = ("before_step", "after_step")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; writes {phase: {"calls": n, "waits": {place: n}}}."""
    output, *words = list(sys.argv[1:] if arguments is None else arguments)
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from fastmix_mega.cli import main as cli
    from fastmix_mega.training.outer_loop import OuterLoop
    from fastmix_mega.training.trainer import Trainer

    found: dict[str, Counter[str]] = {}
    calls: Counter[str] = Counter()
    phase = ["start"]

    def count(kind: str) -> None:
        found.setdefault(phase[0], Counter())[f"{kind} {_where()}"] += 1

    def during(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def call(*given: Any, **named: Any) -> Any:
            before, phase[0] = phase[0], name
            calls[name] += 1
            try:
                return original(*given, **named)
            finally:
                phase[0] = before

        setattr(owner, name, call)

    for name in PHASES:
        during(Trainer, name)
    for name in OUTER:
        during(OuterLoop, name)
    wait = torch.cuda.synchronize

    def synchronize(device: Any = None) -> None:
        count("synchronize")
        wait(device)

    torch.cuda.synchronize = synchronize

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            del types
            kind = _kind_of_wait(function.overloadpacket._qualified_op_name, args, kwargs or {})
            if kind:
                count(kind)
            return function(*args, **(kwargs or {}))

    with Watch():
        code = cli.main(words)
    report = {
        name: {"calls": calls[name], "waits": dict(waits.most_common())}
        for name, waits in found.items()
    }
    report |= {name: {"calls": calls[name], "waits": {}} for name in calls if name not in found}
    if os.environ.get("RANK", "0") == "0":
        Path(output).write_text(json.dumps(report, indent=1))
    return code


def _kind_of_wait(name: str, args: Any, kwargs: dict[str, Any]) -> str:
    """What keeps the host waiting in this operator; empty if nothing does."""
    import torch

    first = _on_cuda(args[0]) if args else False
    if name == "aten::_local_scalar_dense":
        return "number" if first else ""
    if name in SIZES:
        return name if first else ""
    if name == "aten::copy_":
        other = _on_cuda(args[1])
        blocks = not (len(args) > 2 and args[2])
        return "copy" if first != other and blocks else ""
    if name != "aten::_to_copy" or kwargs.get("device") is None:
        return ""
    there = torch.device(kwargs["device"]).type == "cuda"
    if first and not there:
        return "copy to the host"
    return "copy to the device" if there and not first and not kwargs.get("non_blocking") else ""


def _on_cuda(value: Any) -> bool:
    return bool(getattr(value, "is_cuda", False))


def _where() -> str:
    """file:function of the innermost frame of ours or of a library of training."""
    stack = traceback.extract_stack()
    known = [
        frame
        for frame in stack
        if any(part in frame.filename for part in OURS) and "hostcuda" not in frame.filename
    ]
    frame = known[-1] if known else stack[-3]
    place = frame.filename.replace("\\", "/")
    for part in OURS:
        if part in place:
            place = place[place.rindex(part) :]
            break
    return f"{place}:{frame.lineno} {frame.name}"


if __name__ == "__main__":
    raise SystemExit(main())
