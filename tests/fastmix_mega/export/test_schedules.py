"""A plan in the trainers that know schedules: read back, and at the steps that were meant."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fastmix_mega.cli import main as cli
from fastmix_mega.export.schedules import SCHEDULES
from fastmix_mega.export.take import read_blends
from fastmix_mega.mixture.file import MixtureFile, MixtureSource
from fastmix_mega.mixture.phase_plan import Phase, plan_of

SHARES = {"broad": {"web": 0.7, "code": 0.3}, "anneal": {"web": 0.2, "code": 0.8}}
TOKENS = {"broad": 750_000_000, "anneal": 250_000_000}
STEP = ["--global-batch", "96", "--seq-length", "1024"]


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    phases = [
        Phase(
            name,
            TOKENS[name],
            MixtureFile(
                sources=[
                    MixtureSource(name=source, weight=weight, prefix=f"data/{source}")
                    for source, weight in shares.items()
                ]
            ),
            f"phase_{name}",
        )
        for name, shares in SHARES.items()
    ]
    plan_of(phases, 2.0).write(tmp_path / "mixture.json")
    return tmp_path / "mixture.json"


def export(plan: Path, to: str, *words: str) -> Path:
    output = plan.parent / f"{to}.out"
    assert cli.main(["export", str(plan), "--to", to, "--output", str(output), *words]) == 0
    return output


@pytest.mark.parametrize("to", ["levanter", "nanotron", "fastmix-stages"])
def test_a_schedule_is_read_back(plan: Path, to: str) -> None:
    words = [] if to == "fastmix-stages" else [*STEP, "--paths", "caches/{name}"]
    output = export(plan, to, *words)
    blends = read_blends(output, to)
    assert len(blends) == 2
    for blend, shares in zip(blends, SHARES.values(), strict=True):
        taken = {part.source or Path(part.path).name: part.weight for part in blend.parts}
        assert taken == pytest.approx(shares)
    assert blends[0].begins == 0
    if to == "fastmix-stages":
        assert blends[1].begins_tokens == TOKENS["broad"]
        return
    # 7,629.4 steps of 98,304 tokens.
    assert blends[1].begins == {"nanotron": 7629, "levanter": 7616}[to]
    if to == "levanter":
        content = yaml.safe_load(output.read_text())
        # MixtureDataset asserts that a stage begins with a block.
        assert blends[1].begins * 96 % content["data"]["mixture_block_size"] == 0
        assert blends[1].begins_tokens == 7616 * 96 * 1024


def test_megatron_is_started_once_a_phase(plan: Path) -> None:
    output = export(plan, "megatron", *STEP)
    assert (plan.parent / "megatron.broad.out").read_text().split() == [
        *("0.7", "data/web", "0.3", "data/code")
    ]
    assert (plan.parent / "megatron.anneal.out").read_text().split()[0] == "0.2"
    lines = [line for line in output.read_text().splitlines() if "--data-args-path" in line]
    assert len(lines) == 2
    for line in lines:
        assert "--train-iters 10173 --phase-transition-iterations 7629 " in line
        assert "--global-batch-size 96 --seq-length 1024" in line


def test_other_formats_hold_one_mixture(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*words: str) -> str:
        assert cli.main(["export", str(plan), "--output", str(plan.parent / "x"), *words]) == 2
        return capsys.readouterr().err

    assert "export each phase's own (phase_broad, phase_anneal)" in refused("--to", "energon")
    assert "give --global-batch" in refused("--to", "megatron")
    assert "its own budgets" in refused("--to", "megatron", *STEP, "--budget-tokens", "1T")
    huge = ["--global-batch", "1000000", "--seq-length", "1024"]
    assert "are not one step" in refused("--to", "nanotron", "--paths", "{name}", *huge)
    assert set(SCHEDULES) == {"levanter", "nanotron", "megatron", "fastmix-stages"}
