"""`activate()`: from now on this process has CUDA devices, which are made of host memory.

Call it before torch is imported: torch asks once whether there is CUDA.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import types
from collections.abc import Iterator
from typing import Any

from tests.hostcuda import build

NAME = "hostcuda"
MEMORY_BYTES = 80 * 10**9
COUNT_VARIABLE = "HOSTCUDA_DEVICES"
"""Environment variable: how many devices there are; 8 by default."""
state = types.SimpleNamespace(synchronized=0)
"""How often somebody waited for a device."""


def activate() -> None:
    """Load the library and put its devices into `torch.cuda`."""
    assert "torch" not in sys.modules, "torch has been imported already"
    compiled = build.library()
    folder = build.torch_folder() / "lib"
    for name in ("libtorch_global_deps.so", "libc10.so", "libtorch_cpu.so"):
        ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(compiled), mode=ctypes.RTLD_GLOBAL)
    import torch
    import torch._dynamo
    from torch._dynamo import trace_rules

    # It lists torch's functions by identity: before any of them is replaced.
    trace_rules.get_torch_obj_rule_map()
    torch.ops.load_library(str(compiled))
    _replace_torch_cuda()
    _let_storages_move()
    from tests.hostcuda import collectives

    collectives.install()


def device_count() -> int:
    return int(os.environ.get(COUNT_VARIABLE, "8"))


def current_device() -> int:
    import torch

    return int(torch.ops.hostcuda.current_device())


def set_device(device: Any) -> None:
    import torch

    index = _index(device)
    if index >= device_count():
        raise RuntimeError("CUDA error: invalid device ordinal (hostcuda)")
    torch.ops.hostcuda.set_device(index)


def synchronize(device: Any = None) -> None:
    del device
    state.synchronized += 1


def _index(device: Any) -> int:
    import torch

    if device is None:
        return current_device()
    if isinstance(device, int):
        return device if device >= 0 else current_device()
    index = torch.device(device).index
    return current_device() if index is None else index


class DeviceContext:
    """`torch.cuda.device(...)`."""

    def __init__(self, device: Any) -> None:
        self._device = device

    def __enter__(self) -> None:
        self._before = current_device()
        if self._device is not None:
            set_device(self._device)

    def __exit__(self, *_: Any) -> None:
        set_device(self._before)


class Stream:
    """A stream on which everything has been done already."""

    def __init__(self, *_: Any, **__: Any) -> None:
        import torch

        self.device_index, self.device_type = current_device(), 1
        self.device = torch.device("cuda", self.device_index)
        self.cuda_stream = self.stream_id = 0

    def synchronize(self) -> None:
        synchronize()

    def wait_stream(self, stream: Any) -> None: ...

    def wait_event(self, event: Any) -> None: ...

    def record_event(self, event: Any = None) -> Any:
        return event or Event()

    def query(self) -> bool:
        return True

    def __enter__(self) -> None: ...

    def __exit__(self, *_: Any) -> None: ...


class Event:
    """An event that has happened already."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def record(self, *_: Any) -> None: ...

    def wait(self, *_: Any) -> None: ...

    def synchronize(self) -> None:
        synchronize()

    def query(self) -> bool:
        return True

    def elapsed_time(self, _: Any) -> float:
        return 1.0


@contextlib.contextmanager
def _use_stream(_: Any) -> Iterator[None]:
    yield


def _replace_torch_cuda() -> None:
    """Each name gets a function of its own: dynamo keeps its rules by identity."""
    import torch

    cuda, inner = torch.cuda, torch._C
    properties = types.SimpleNamespace(
        name=NAME,
        major=9,
        minor=0,
        total_memory=MEMORY_BYTES,
        multi_processor_count=132,
        gcnArchName="",
    )
    constants: dict[str, Any] = {
        **dict.fromkeys(("_is_compiled", "is_available", "is_initialized"), True),
        **dict.fromkeys(("is_bf16_supported",), True),
        **dict.fromkeys(("_is_in_bad_fork", "is_current_stream_capturing"), False),
        **dict.fromkeys(("init", "_lazy_init", "empty_cache", "ipc_collect"), None),
        **dict.fromkeys(("reset_peak_memory_stats", "reset_max_memory_allocated"), None),
        **dict.fromkeys(("reset_max_memory_cached", "set_sync_debug_mode"), None),
        **dict.fromkeys(("set_per_process_memory_fraction",), None),
        **dict.fromkeys(("memory_allocated", "max_memory_allocated", "memory_cached"), 0),
        **dict.fromkeys(("memory_reserved", "max_memory_reserved", "max_memory_cached"), 0),
        "get_device_properties": properties,
        "get_device_capability": (9, 0),
        "get_device_name": NAME,
        "mem_get_info": (MEMORY_BYTES * 7 // 8, MEMORY_BYTES),
        "memory_stats": {},
    }
    for name, value in constants.items():
        setattr(cuda, name, _always(value))
    cuda.device_count = lambda: device_count()
    cuda.current_device = lambda: current_device()
    cuda.set_device = lambda device: set_device(device)
    cuda.synchronize = lambda device=None: synchronize(device)
    cuda.device, cuda.Stream, cuda.Event = DeviceContext, Stream, Event
    cuda.stream = _use_stream
    cuda.current_stream = lambda *_, **__: Stream()
    cuda.default_stream = lambda *_, **__: Stream()
    _share_the_generator(cuda, torch)
    for name in ("range_push", "range_pop", "mark"):
        setattr(cuda.nvtx, name, _always(None))
    cuda.nvtx.range = lambda *_, **__: contextlib.nullcontext()
    torch.version.cuda = "13.0"
    inner._cuda_getDeviceCount = lambda: device_count()
    inner._cuda_getDevice = lambda: current_device()
    inner._cuda_setDevice = lambda device: set_device(device)
    inner.__dict__["_cuda_isInBadFork"] = lambda: False
    inner._cuda_getCurrentStream = lambda device: (0, device, 1)
    inner._cuda_getCurrentRawStream = _always(0)
    torch.Tensor.record_stream = _always(None)


def _always(value: Any) -> Any:
    return lambda *_, **__: value


def _share_the_generator(cuda: Any, torch: Any) -> None:
    """Random numbers of all devices come from the CPU's generator."""
    for owner in (cuda, cuda.random):
        owner.get_rng_state = lambda *_, **__: torch.get_rng_state()
        owner.set_rng_state = lambda state, *_, **__: torch.set_rng_state(state)
        for name in ("manual_seed", "manual_seed_all"):
            setattr(owner, name, lambda number: torch.default_generator.manual_seed(int(number)))
    cuda.default_generators = tuple(torch.Generator() for _ in range(64))


def _let_storages_move() -> None:
    """torch.save and torch.load: a CPU build cannot make storages on CUDA by itself."""
    import torch

    def tag(storage: Any) -> str | None:
        return f"cuda:{storage.device.index}" if storage.device.type == "cuda" else None

    def restore(storage: Any, location: str) -> Any:
        if not location.startswith("cuda"):
            return None
        where = location if ":" in location else "cuda"
        made = torch.empty(storage.nbytes(), dtype=torch.uint8, device=where)
        made.copy_(torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage))
        return made.untyped_storage()

    torch.serialization.register_package(5, tag, restore)
