"""Which fake tensors are alive, and what for: the memory of one process without its data.

Under torch's FakeTensorMode tensors have sizes and devices and no values. A dispatch mode sees each
of them come, and a finalizer sees its storage go. What only a GPU could know (a number, how many
elements are not zero) is answered by a constant, so that the step goes on as an ordinary one does.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PARTS = ("parameters", "gradients", "optimizer", "direction", "activations", "logits", "buffers")
"""As `fastmix_mega.planning.memory.Memory` has them."""


class FakeMemory(TorchDispatchMode):
    """Counts bytes of fake storages by part.

    Args:
        vocabulary: rows of the head on this process: tensors with as many columns are logits.
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self._vocabulary = vocabulary
        self._live: dict[int, tuple[str, int]] = {}
        self._now: Counter[str] = Counter()
        self._part = "buffers"
        self.peak: Counter[str] = Counter()
        """Bytes by part at the highest moment since `forget_peak`."""
        self.collectives: Counter[str] = Counter()
        """How often each operator of torch.distributed was called."""

    @property
    def peak_bytes(self) -> int:
        return sum(self.peak.values())

    def forget_peak(self) -> None:
        self.peak = Counter(self._now)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What comes while the block runs is of this part, but for what is known better."""
        before, self._part = self._part, name
        try:
            yield
        finally:
            self._part = before

    def assign(self, part: str, tensors: Iterable[Tensor | None]) -> None:
        """Say what some tensors are for."""
        for tensor in tensors:
            key = None if tensor is None else tensor.untyped_storage()._cdata
            if key in self._live:
                before, size = self._live[key]
                self._live[key] = (part, size)
                self._now[before] -= size
                self._now[part] += size

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        del types
        name = function.overloadpacket._qualified_op_name
        if name.startswith("c10d::"):
            self.collectives[name] += 1
        answer = _without_values(name, args)
        if answer is not None:
            return answer
        found = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            self._see(leaf)
        return found

    def _see(self, tensor: Any) -> None:
        if not isinstance(tensor, FakeTensor):
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live:
            return
        size = int(storage.nbytes())
        part = self._part
        if part == "activations" and tensor.dim() > 1 and tensor.size(-1) == self._vocabulary:
            part = "logits"
        self._live[key] = (part, size)
        self._now[part] += size
        if sum(self._now.values()) > self.peak_bytes:
            self.peak = Counter(self._now)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        part, size = self._live.pop(key, ("buffers", 0))
        self._now[part] -= size


def _without_values(name: str, args: Any) -> Any:
    """The answer to what depends on values; None for all other operators."""
    if name == "aten::_local_scalar_dense":
        dtype = args[0].dtype
        return False if dtype == torch.bool else 1.0 if dtype.is_floating_point else 1
    if name == "aten::nonzero":
        return args[0].new_empty((args[0].numel(), args[0].dim()), dtype=torch.int64)
    if name == "aten::_pin_memory":
        return args[0]
    return True if name in ("aten::equal", "aten::is_nonzero") else None
