"""What a run was asked for and what it does: our own run folders, and logs as others write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastmix_mega.cli import main as cli
from fastmix_mega.errors import UserError
from fastmix_mega.report.watch import describe, read_run
from tests.launch import run_config
from tests.tiny import SOURCES

MEGATRON = """
 [2026-08-01 10:00:00] iteration        1/     500 | consumed samples:           16 | elapsed time \
per iteration (ms): 900.1 | learning rate: 1.0E-04 | global batch size:    16 | lm loss: \
1.081E+01 | loss scale: 1.0 | grad norm: 2.0 |
 [2026-08-01 10:00:01] iteration        2/     500 | consumed samples:           32 | elapsed time \
per iteration (ms): 900.1 | learning rate: 1.0E-04 | global batch size:    16 | lm loss: \
1.0E+01 | loss scale: 1.0 | grad norm: 2.0 |
 validation loss at iteration 2 on validation set | lm loss value: 9.5E+00 | lm loss PPL: 1.3E+04 |
"""
"""As Megatron-LM's training_log and evaluate_and_print_results write them."""
TORCHTITAN = """
[titan] 2026-08-01 - root - INFO - \x1b[31mstep:  1  \x1b[32mloss: 12.2 \x1b[38mmemory: 1
[titan] 2026-08-01 - root - INFO - \x1b[31mstep: 1,010  \x1b[32mloss:  7.5 \x1b[38mmemory: 1
"""


@pytest.fixture
def trained(settings: dict[str, Any], corpora: Path, tmp_path: Path) -> Path:
    """A real run with the mixture that its configuration asks for."""
    weights = dict(zip(SOURCES, (0.5, 0.25, 0.125, 0.125), strict=True))
    sets = [{"name": "held_out", "prefix": str(corpora / "target")}]
    more = {"mixture": weights, "evaluation": {"sets": sets, "sequences": 8}}
    return run_config("train", settings | more, tmp_path)


def test_our_run_does_what_it_was_asked(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["watch", str(trained)]) == 0
    shown = capsys.readouterr().out
    assert "fastmix run at step" in shown
    assert "alpha    50.000%   50.000%" in shown
    # Another mixture than the run's own: it is told, and the exit code says so.
    asked = [{"name": name, "weight": 0.25} for name in SOURCES]
    (tmp_path / "m.json").write_text(json.dumps({"sources": asked}))
    assert cli.main(["watch", str(trained), "--mixture", str(tmp_path / "m.json")]) == 1
    assert "warning: alpha has 50.000% of" in capsys.readouterr().out
    # Before its end a run has no mixture.json; here it was told of a run folder.
    (tmp_path / "found").mkdir()
    (trained / "mixture.json").rename(tmp_path / "found" / "mixture.json")
    config = yaml.safe_load((trained / "config.yaml").read_text())
    (trained / "config.yaml").write_text(
        yaml.safe_dump(config | {"mixture": str(tmp_path / "found")})
    )
    assert cli.main(["watch", str(trained)]) == 0
    assert "alpha    50.000%   50.000%" in capsys.readouterr().out


def test_a_prediction_that_is_not_of_this_run(trained: Path) -> None:
    run = read_run(trained)
    name, loss = next(iter(run.evaluations.items()))
    assert describe(run, None, {name: loss - 0.1})[1] == []
    (warning,) = describe(run, None, {name: loss + 0.1})[1]
    assert "already below" in warning


def test_megatron_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(MEGATRON)
    run = read_run(tmp_path / "log")
    assert (run.kind, run.step, run.losses) == ("megatron", 2, [10.81, 10.0])
    assert run.evaluations == {"validation set": 9.5}
    lines, warnings = describe(run, {"a": 1.0}, None)
    assert any("does not tell them" in line for line in lines)
    assert warnings == []


def test_torchtitan_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(TORCHTITAN)
    run = read_run(tmp_path / "log")
    assert (run.kind, run.step, run.losses) == ("torchtitan", 1010, [12.2, 7.5])


def test_a_loss_that_is_not_finite_is_told(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(MEGATRON.replace("1.0E+01 | loss scale", "nan | loss scale"))
    assert "nan" in describe(read_run(tmp_path / "log"), None, None)[1][0]


@pytest.mark.parametrize("text", ["", "hello\n", "step 3"])
def test_nothing_known(tmp_path: Path, text: str) -> None:
    (tmp_path / "log").write_text(text)
    with pytest.raises(UserError, match="no line of training"):
        read_run(tmp_path / "log")
    with pytest.raises(UserError, match="no run folder"):
        read_run(tmp_path)
    with pytest.raises(UserError, match="cannot read"):
        read_run(tmp_path / "missing")


def test_other_sources_are_refused(trained: Path) -> None:
    with pytest.raises(UserError, match="other sources"):
        describe(read_run(trained), {"alpha": 1.0}, None)
