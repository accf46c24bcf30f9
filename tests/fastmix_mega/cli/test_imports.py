"""A start without the compiler, which still compiles what is called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.launch import clean_environment, fastmix

PROGRAM = """
import sys
from fastmix_mega.cli.imports import import_libraries
import torch
before = torch.compile
import_libraries()
assert torch.compile is before
loaded = [name for name in ("torch._inductor.compile_fx", "wandb") if sys.modules.get(name)]
assert not loaded, loaded
assert "wandb" not in sys.modules
import wandb
from megatron.core.fusions import fused_bias_swiglu
assert fused_bias_swiglu.swiglu.__name__ == "swiglu"
assert fused_bias_swiglu.swiglu.__wrapped__ is not fused_bias_swiglu.swiglu
compiled = []
def compile_now(function, **options):
    compiled.append(function.__name__)
    return function
from fastmix_mega.cli import imports
torch.compile = compile_now
with imports._compiled_when_called():
    double = torch.compile(lambda x: 2 * x)
    triple = torch.compile(dynamic=True)(lambda x: 3 * x)
assert not compiled
assert (double(2), double(3), triple(2)) == (4, 6, 6)
assert len(compiled) == 2
"""


def test_libraries_are_imported_without_the_compiler() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=clean_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


CHECK = """
import sys
from fastmix_mega.cli.main import main
assert main(["check", sys.argv[1]]) == 0
loaded = [name for name in ("torch.distributed.elastic", "deepspeed", "megatron", "wandb")
          if sys.modules.get(name)]
assert not loaded, loaded
"""


def test_check_imports_no_library_of_training(settings: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(path)],
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    # And nothing of theirs comes before the first useful line.
    assert done.stderr == ""


@pytest.mark.parametrize(
    "words",
    [
        ["eval", "nowhere"],
        ["export", "nowhere", "--to", "huggingface", "-o", "model"],
        ["import", "nowhere", "--from", "huggingface", "-o", "keys.yaml"],
    ],
)
def test_no_library_warns_before_the_first_useful_line(words: list[str], tmp_path: Path) -> None:
    """What they have to say comes as they are imported; the run is looked for afterwards."""
    shown = fastmix(*words, expect=2, folder=tmp_path)
    assert shown.startswith(f"fastmix {words[0]}: ")
    assert shown.count("\n") == 1
