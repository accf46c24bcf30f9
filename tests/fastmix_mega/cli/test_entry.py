"""Ctrl-C while the command still imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_core import SchemaError

from fastmix_mega.cli import entry
from tests.launch import clean_environment

INTERRUPTED = """
import builtins, os, signal, sys

# A shell that starts a job in the background lets it ignore the signal.
signal.signal(signal.SIGINT, signal.default_int_handler)
where, *words = sys.argv[1:]
imported = builtins.__import__

def interrupt(name, *given, **named):
    if name == where or name.startswith(where + "."):
        builtins.__import__ = imported
        os.kill(os.getpid(), signal.SIGINT)
    return imported(name, *given, **named)

builtins.__import__ = interrupt
sys.argv = ["fastmix", *words]
from fastmix_mega.cli.entry import main

sys.exit(main())
"""


@pytest.mark.parametrize(
    ("where", "verb"),
    [("argparse", "check"), ("pydantic", "check"), ("torch", "search"), ("jinja2", "report")],
)
def test_ctrl_c_is_no_stack_trace(
    settings: dict[str, Any], tmp_path: Path, where: str, verb: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, where, verb, str(path)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines()[-1] == "fastmix: interrupted"
    assert "Traceback" not in done.stderr
    # Nothing is left behind, the run folder's lock neither.
    assert not (tmp_path / "run").exists()


def test_ctrl_c_in_pydantic_is_no_stack_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It comes as pydantic's own error while a class is made."""

    def command() -> int:
        raise SchemaError("Error building a schema:\n  KeyboardInterrupt: ")

    monkeypatch.setattr("fastmix_mega.cli.main.main", command)
    assert entry.main() == 130
    assert capsys.readouterr().err == "fastmix: interrupted\n"
