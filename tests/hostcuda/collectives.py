"""NCCL of hostcuda: takes what NCCL takes, and is gloo on the same memory.

"nccl" refuses tensors of the CPU, of another device than the current one, of strides and of dtypes
that NCCL does not know; groups of gloo refuse CUDA tensors. Leaving an NCCL world waits for the
others, as ncclCommDestroy does.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d

from tests.hostcuda import device

UNKNOWN_DTYPES = {torch.int16, torch.complex64, torch.complex128}
COLLECTIVES = (
    *("all_reduce", "broadcast", "reduce", "gather", "scatter"),
    *("all_gather", "all_gather_into_tensor", "_all_gather_base"),
    *("reduce_scatter", "reduce_scatter_tensor", "_reduce_scatter_base"),
    *("all_to_all", "all_to_all_single", "send", "recv", "isend", "irecv"),
)
_original = {
    name: getattr(c10d, name)
    for name in ("init_process_group", "new_group", "destroy_process_group", "barrier")
}
_kinds: dict[int, str] = {}
"""By the identity of a group: nccl or gloo."""
_world = {"kind": "gloo"}


def install() -> None:
    """Replace torch.distributed's functions."""
    replaced = {
        "init_process_group": _init_process_group,
        "new_group": _new_group,
        "destroy_process_group": _destroy_process_group,
        "get_backend": _kind_of,
        "barrier": _barrier,
        "batch_isend_irecv": _batch_isend_irecv,
        "is_nccl_available": lambda: True,
    }
    replaced |= {name: _checked(name, getattr(c10d, name)) for name in COLLECTIVES}
    for name, function in replaced.items():
        setattr(c10d, name, function)
        if hasattr(dist, name):
            setattr(dist, name, function)
    c10d._get_object_coll_device = lambda group=None: str(_device_of(group))
    c10d._get_pg_default_device = lambda group=None: _device_of(group)


def _kind_of(group: Any = None) -> str:
    if group is None or group is c10d._get_default_group():
        return _world["kind"]
    return _kinds.get(id(group), _world["kind"])


def _device_of(group: Any) -> torch.device:
    nccl = _kind_of(group) == "nccl"
    return torch.device("cuda", device.current_device()) if nccl else torch.device("cpu")


def _init_process_group(backend: str | None = None, *arguments: Any, **named: Any) -> Any:
    _world["kind"] = "nccl" if "nccl" in (backend or "nccl") else str(backend)
    named.pop("device_id", None)
    real = "fake" if backend == "fake" else "gloo"
    return _original["init_process_group"](real, *arguments, **named)


def _new_group(
    ranks: Any = None, timeout: Any = None, backend: str | None = None, *_: Any, **named: Any
) -> Any:
    for name in ("device_id", "pg_options"):
        named.pop(name, None)
    real = None if _world["kind"] == "fake" else "gloo"
    group = _original["new_group"](ranks, timeout=timeout, backend=real, **named)
    if isinstance(group, dist.ProcessGroup):
        asked = _world["kind"] if _world["kind"] == "fake" else backend or _world["kind"]
        _kinds[id(group)] = "nccl" if "nccl" in asked else asked
    return group


def _destroy_process_group(group: Any = None) -> None:
    if group is None and _world["kind"] == "nccl" and dist.get_world_size() > 1:
        store: Any = c10d._get_default_store()
        store.add("hostcuda-destroyed", 1)
        while store.add("hostcuda-destroyed", 0) < dist.get_world_size():
            time.sleep(0.01)
        # The store may live in rank 0, which leaves last.
        store.add("hostcuda-gone", 1)
        while dist.get_rank() == 0 and store.add("hostcuda-gone", 0) < dist.get_world_size():
            time.sleep(0.01)
    _original["destroy_process_group"](group)


def _barrier(group: Any = None, async_op: bool = False, device_ids: Any = None) -> Any:
    del device_ids
    return _original["barrier"](group=group, async_op=async_op)


def _batch_isend_irecv(operations: list[Any]) -> list[Any]:
    found = []
    for each in operations:
        peer = "dst" if each.op is c10d.isend else "src"
        found.append(each.op(each.tensor, group=each.group, tag=each.tag, **{peer: each.peer}))
    return found


def _checked(name: str, function: Any) -> Any:
    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        groups = [value for value in arguments if isinstance(value, dist.ProcessGroup)]
        group = named.get("group") or (groups[-1] if groups else None)
        kind = _kind_of(group)
        if kind == "fake":
            return function(*arguments, **named)
        given = [_taken(value, kind, name) for value in arguments]
        return function(*given, **{key: _taken(value, kind, name) for key, value in named.items()})

    return call


def _taken(value: Any, kind: str, name: str) -> Any:
    """The same memory for gloo, if this kind of group takes the tensor.

    Raises:
        RuntimeError: if it does not.
    """
    if isinstance(value, (list, tuple)):
        return type(value)(_taken(each, kind, name) for each in value)
    if not isinstance(value, torch.Tensor):
        return value
    what = f"{name} of a tensor {tuple(value.shape)}, {value.dtype}, on {value.device}"
    if kind != "nccl":
        if value.is_cuda:
            raise RuntimeError(f"hostcuda: {what}, over gloo")
        return value
    if not value.is_cuda:
        raise RuntimeError(f"No backend type associated with device type cpu (hostcuda: {what})")
    if value.dtype in UNKNOWN_DTYPES:
        raise RuntimeError(f"hostcuda: NCCL does not know the dtype: {what}")
    if not value.is_contiguous():
        raise ValueError(f"Tensors must be contiguous (hostcuda: {what}, {value.stride()})")
    if value.device.index != device.current_device():
        raise RuntimeError(f"hostcuda: {what}, current device {device.current_device()}")
    return torch.ops.hostcuda.host(value)
