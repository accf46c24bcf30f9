"""`fastmix plan` from the command line."""

import pytest

from fastmix_mega.cli import main as cli
from fastmix_mega.configuration import load_config
from fastmix_mega.planning.describe import best_plan, planned_shape
from fastmix_mega.planning.dry_run import method_that_runs
from fastmix_mega.planning.layouts import Machine

LARGE = "configs/large_70b.yaml"


def test_recommends_a_layout_that_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", LARGE, "--gpus", "64", "--mode", "train"]) == 0
    text = capsys.readouterr().out
    assert "recommended: parallel: {" in text
    assert "optimizer" in text
    assert "sent per GPU and training step: " in text
    assert " GB = parameters " in text


def test_every_offered_layout_fits_and_is_ordered() -> None:
    method, mode = method_that_runs(load_config("configs/large_7b.yaml"), "search")
    config, machine = method.config, Machine(80e9)
    assert mode == "search"
    _, plans = best_plan(config, planned_shape(config), 64, "search", machine)
    assert plans
    assert all(plan.memory.total <= machine.usable for plan in plans)
    times = [plan.step_seconds for plan in plans]
    assert times == sorted(times)
    assert all(plan.parallel.zero < 3 for plan in plans), "a search cannot run under ZeRO 3"


def test_smaller_gpus_need_another_layout() -> None:
    config = load_config(LARGE)
    shape = planned_shape(config)
    roomy = best_plan(config, shape, 512, "train", Machine(140e9))[1]
    tight = best_plan(config, shape, 512, "train", Machine(24e9))[1]
    assert len(tight) < len(roomy)


def test_says_when_nothing_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", LARGE, "--gpus", "8", "--gpu-memory", "24", "--mode", "train"]) == 2
    assert "nothing fits" in capsys.readouterr().err


def test_says_why_the_configured_layout_cannot_run(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", LARGE, "--gpus", "512", "--mode", "train", "parallel.pipeline=3"]
    assert cli.main(words) == 0
    assert "cannot share model.layers" in capsys.readouterr().out


def test_a_tiny_model_is_not_split(capsys: pytest.CaptureFixture[str]) -> None:
    """And its sizes are told in units that fit them."""
    tiny = ["tokenizer=none", "model.vocab_size=1024", "model.preset=tiny"]
    assert cli.main(["plan", "configs/demo.yaml", "--gpus", "2", *tiny]) == 0
    shown = capsys.readouterr().out
    assert "recommended: parallel: {zero: " in shown.replace("tensor: 1, pipeline: 1, ", "")
    assert " MB" in shown
    assert "0.00" not in shown
    assert cli.main(["plan", "configs/demo.yaml", "--gpus", "32", *tiny]) == 0
    shown = capsys.readouterr().out
    assert "parameters is not worth splitting; take at most 4 GPUs" in shown
    # Without --gpus: this machine's.
    assert cli.main(["plan", "configs/demo.yaml", *tiny]) == 0
    assert "on 1 GPUs" in capsys.readouterr().out
