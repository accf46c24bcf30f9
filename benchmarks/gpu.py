"""Everything that one GPU can tell in ten minutes, in one command:

    python -m benchmarks.gpu --output gpu.json

The JSON is written after each part, so that a machine that is taken away leaves what it has told.
Each part is a process of its own with a time limit; one that fails is told, and the others go on.

On a machine with Python 3.12 and torch 2.11 and no package registry, wheels travel along in a
folder, which is filled where there is a registry; they go beside the torch that is there:

    python -m benchmarks.gpu --pack wheels        (those of WHEELS below)
    python -m benchmarks.gpu --wheels wheels --output gpu.json

`--tiny` takes sizes that a CPU can do; tests/hostcuda runs all parts so.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WHEELS = (
    "deepspeed==0.19.8",
    "megatron-core==0.16.1",
    "sentencepiece==0.2.3",
    "pydantic==2.14.3",
    "PyYAML==6.0.3",
    "orjson==3.13.0",
    "fsspec==2026.9.0",
    "tokenizers==0.23.3",
    "safetensors==0.8.0",
    "numpy==2.4.6",
    "scipy==1.17.1",
    "Jinja2==3.1.6",
)
"""What a run imports, but for torch; with what these need themselves."""
TARGET_PYTHON = "3.12"
LIMIT_SECONDS = {"values": 900.0}
USUAL_LIMIT = 300.0
SIZES = {
    "150M": ("configs/proxy_150m.yaml", ["model.vocab_size=32000", "train.global_batch=32"]),
    "1B": ("configs/large_1b.yaml", ["train.global_batch=4", "train.micro_batch=1"]),
}
"""Shipped configurations, with a batch of a few micro-batches for one GPU."""
TARGETS = 'targets=[{"name":"target","prefix":"/data/targets/reasoning"}]'
TINY = [
    "model.preset=tiny",
    "model.vocab_size=512",
    "train.seq_length=32",
    "train.global_batch=4",
    "train.micro_batch=1",
    "search.target_batch=2",
]
SLICE_WORLD = 8
"""Ranks of the 7B model's slice: tensor parallelism alone."""


@dataclass(frozen=True)
class Asked:
    """What the command line says."""

    tiny: bool
    program: tuple[str, ...]
    """How Python starts a module: `-m`, or through a module that prepares the process."""


def machine(asked: Asked) -> dict[str, Any]:
    """Device, driver, versions."""
    del asked
    from fastmix_mega.config.sections import ParallelSection
    from fastmix_mega.doctor.machine import facts
    from fastmix_mega.parallel import layout as layouts

    with layouts.start(ParallelSection()) as layout:
        return facts(layout)


def values(asked: Asked) -> dict[str, Any]:
    """A tiny search against stored values of the CPU: plain, compiled, TransformerEngine, resumed;
    and one that two processes began on the CPU and the GPU goes on with."""
    from fastmix_mega.doctor.searches import Searches
    from fastmix_mega.model.kernels import Capabilities

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        searches = Searches(folder, 1, _say, (sys.executable, *asked.program, "fastmix_mega"))
        found = {
            each.name: {"status": each.status, "text": each.text, "details": each.details}
            for each in searches.findings(Capabilities.here())
        }
        return found | {"relayout, CPU to GPU": _relayout(folder, asked)}


def _relayout(folder: Path, asked: Asked) -> dict[str, Any]:
    """Two processes of gloo make the first half; the GPU alone makes the second one."""
    from fastmix_mega.doctor import corpora
    from fastmix_mega.doctor.commands import run
    from fastmix_mega.doctor.expected import losses_of

    run_dir, command = folder / "relayout", ("search", str(folder / "relayout.yaml"))
    content = corpora.settings(folder / "data", run_dir)
    halved = content | {"train": content["train"] | {"steps": corpora.HALF}}
    # A half by itself must decay as the whole does: its schedule is constant.
    for steps, processes, program, hidden in (
        (halved, "2", ("-m",), {"CUDA_VISIBLE_DEVICES": ""}),
        (content, "1", asked.program, {}),
    ):
        steps["train"]["schedule"] = {"kind": "constant", "warmup": 2, "peak": 1e-3}
        corpora.write_settings(folder / "relayout.yaml", steps)
        words = [*command, "--nproc", processes, "--allow-changed=train.steps"]
        done = run(words, USUAL_LIMIT, (sys.executable, *program, "fastmix_mega"), **hidden)
        if done.code:
            return {"status": "failed", "text": f"exit code {done.code}", "log": done.end}
    return {"status": "ok", "text": "goes on", "losses": losses_of(run_dir)}


def training(asked: Asked, size: str, compile_regions: str) -> dict[str, Any]:
    """Tokens a second, MFU, the search's overhead, peak against plan, and waits for the GPU."""
    import torch

    from fastmix_mega.doctor.step import measure
    from fastmix_mega.parallel import layout as layouts
    from fastmix_mega.planning.describe import planned_shape

    config = _config(asked, size, [f"kernels.compile={compile_regions}"])
    with layouts.start(config.parallel) as layout, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        found = measure(config, planned_shape(config), layout, "search")
        torch.cuda.set_sync_debug_mode("default")
    found["peak_over_plan"] = found["peak_bytes"] / found["planned_bytes"]
    waits = [
        f"{each.filename}:{each.lineno}" for each in caught if "synchroniz" in str(each.message)
    ]
    found["waits"] = {place: waits.count(place) for place in sorted(set(waits))}
    return found


def _config(asked: Asked, size: str, overrides: list[str]) -> Any:
    from fastmix_mega.configuration import load_config

    path, changes = SIZES[size]
    changes = [*changes, TARGETS, "mixture=uniform", "tokenizer=/nowhere", "run_dir=/nowhere"]
    return load_config(path, [*changes, *overrides, *(TINY if asked.tiny else [])])


def slice_of_7b(asked: Asked) -> dict[str, Any]:
    """One rank of 7B under tensor parallelism of 8, whose others are not there: its real peak."""
    import torch

    from fastmix_mega.cli.imports import import_libraries
    from fastmix_mega.configuration import load_config
    from fastmix_mega.doctor.step import measure
    from fastmix_mega.planning.describe import planned_shape
    from fastmix_mega.planning.fake_gpu import join_world_of_one

    import_libraries()
    sizes = ["model.attention_heads=8", "model.key_value_heads=8", "model.ffn_size=128"]
    overrides = ["parallel.tensor=8", "train.global_batch=2", "mixture=uniform"]
    config = load_config(
        "configs/large_7b.yaml", [*overrides, *([*TINY, *sizes] if asked.tiny else [])]
    )
    device = torch.device("cuda", torch.cuda.current_device())
    layout = join_world_of_one(config.parallel, SLICE_WORLD, 0, device)
    found = measure(config, planned_shape(config), layout, "train")
    # Its collectives move nothing: how long a step takes says nothing.
    kept = ("kernels", "peak_bytes", "planned_bytes", "planned_parts")
    return {name: found[name] for name in kept}


def out_of_memory(asked: Asked) -> dict[str, Any]:
    """A run that gets too little memory: is it told as what it is?"""
    import torch

    from fastmix_mega.doctor.step import measure
    from fastmix_mega.parallel import layout as layouts
    from fastmix_mega.planning.describe import planned_shape

    config = _config(asked, "150M", [])
    try:
        with layouts.start(config.parallel) as layout:
            torch.cuda.set_per_process_memory_fraction(0.01)
            measure(config, planned_shape(config), layout, "search")
    except torch.OutOfMemoryError as error:
        return {"told": str(error).splitlines()[0], "traceback": traceback.format_exc()[-1500:]}
    return {"told": None, "text": "this device has no limit"}


PARTS: dict[str, Callable[[Asked], dict[str, Any]]] = {
    "machine": machine,
    "values": values,
    "150M": lambda asked: training(asked, "150M", "off"),
    "150M, compiled": lambda asked: training(asked, "150M", "auto"),
    "1B": lambda asked: training(asked, "1B", "off"),
    "1B, compiled": lambda asked: training(asked, "1B", "auto"),
    "one rank of 7B, TP8": slice_of_7b,
    "out of memory": out_of_memory,
}
"""In the order of what would be missed most."""


def run_parts(asked: Asked, names: Sequence[str], output: Path) -> dict[str, Any]:
    """Each in a process of its own; the JSON is written after each."""
    from fastmix_mega.doctor.commands import run
    from fastmix_mega.files import write_json

    found: dict[str, Any] = {}
    for name in names:
        _say(name)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "part.json"
            words = ["--part", name, "--output", str(path), *(["--tiny"] if asked.tiny else [])]
            words += [f"--program={' '.join(asked.program)}"]
            program = (sys.executable, *asked.program, "benchmarks.gpu")
            done = run(words, LIMIT_SECONDS.get(name, USUAL_LIMIT), program)
            part = json.loads(path.read_text()) if path.exists() else {"log": done.end}
        found[name] = {"exit_code": done.code, "seconds": round(done.seconds, 1)} | part
        write_json(output, found)
    return found


def ended_badly(part: dict[str, Any]) -> bool:
    """Whether a part ended with an error, or one of its findings is a failure."""
    findings = [each for each in part.values() if isinstance(each, dict)]
    return bool(part["exit_code"]) or any(each.get("status") == "failed" for each in findings)


def _say(text: str) -> None:
    print(f"gpu: {text} ...", file=sys.stderr, flush=True)


def pack(folder: Path) -> None:
    """Download WHEELS for Python TARGET_PYTHON, and build those that have none."""
    for wheel in WHEELS:
        pip = [sys.executable, "-m", "pip"]
        binary = [*pip, "download", "--only-binary=:all:", f"--python-version={TARGET_PYTHON}"]
        binary += ["--platform=manylinux_2_28_x86_64", "--platform=manylinux2014_x86_64"]
        if subprocess.run([*binary, "--dest", str(folder), wheel]).returncode:
            built = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
            subprocess.run([*built, wheel], check=True)


def install(folder: Path) -> None:
    """From the folder alone, without touching the torch that is here."""
    target = folder / "installed"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    wheels = sorted(str(path) for path in folder.glob("*.whl") if not path.name.startswith("torch"))
    subprocess.run([*command, "--upgrade", f"--target={target}", *wheels], check=True)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(target), os.environ.get("PYTHONPATH")))
    )
    sys.path.insert(0, str(target))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--tiny", action="store_true", help="sizes that a CPU can do")
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="install from it first")
    parser.add_argument("--pack", type=Path, metavar="FOLDER", help="fill it, and do nothing else")
    parser.add_argument("--program", default="-m", help=argparse.SUPPRESS)
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.pack is not None:
        pack(options.pack)
        return 0
    if options.wheels is not None:
        install(options.wheels)
    asked = Asked(options.tiny, tuple(options.program.split()))
    if options.part is None:
        begun = time.monotonic()
        found = run_parts(asked, options.parts, options.output)
        wrong = [name for name, part in found.items() if ended_badly(part)]
        print(f"{options.output}: {len(found)} parts, {time.monotonic() - begun:.0f} s")
        print(f"failed: {', '.join(wrong)}" if wrong else "all parts ended well")
        return 1 if wrong else 0
    from fastmix_mega.cli.imports import import_libraries
    from fastmix_mega.files import write_json

    import_libraries()
    write_json(options.output, PARTS[options.part](asked))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
