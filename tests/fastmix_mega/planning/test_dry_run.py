"""One rank of runs of 8 and of 1,024 GPUs, without any; the others: benchmarks/dry_runs.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.dry_runs import CASES, TOLERANCE, compare
from fastmix_mega.cli import main as cli
from fastmix_mega.configuration import load_config, parse_config
from fastmix_mega.errors import RunFailed
from fastmix_mega.planning.dry_run import dry_runs, ranks_to_run


@pytest.mark.distributed
@pytest.mark.parametrize("name", ["150M, search, 8", "1B, 1,024"])
def test_plan_is_near_what_a_rank_takes(name: str) -> None:
    for rank, seen, said in compare(CASES[name]):
        assert said == pytest.approx(seen, rel=TOLERANCE), f"rank {rank}"


def test_ranks_that_need_most_are_at_the_ends_of_the_pipeline() -> None:
    config = load_config("configs/large_7b.yaml", ["parallel.pipeline=4"])
    assert ranks_to_run(config, 64) == [0, 48]
    assert ranks_to_run(load_config("configs/large_7b.yaml"), 64) == [0]


@pytest.mark.distributed
def test_the_command_tells_of_one_rank(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A search on the last of 64 ranks, TP2 + sequence x PP2: it holds the head and the scores."""
    settings["parallel"] = {"tensor": 2, "sequence": True, "pipeline": 2}
    settings["train"] |= {"global_batch": 128, "micro_batch": 2}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    words = ["plan", str(path), "--gpus", "64", "--dry-run", "--rank", "63"]
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    assert "rank 63 (data 15, tensor 1, pipeline 1, context 0): 2 steps of 4 micro-batches" in told
    assert "runs, and fits" in told


def test_mistakes_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "configs/large_7b.yaml", "--gpus", "64", "--mode", "train"]
    assert cli.main([*words, "--dry-run", "parallel.pipeline=3"]) == 2
    assert cli.main([*words, "--dry-run", "--rank", "64"]) == 2
    assert cli.main([*words, "--rank", "1"]) == 2
    told = capsys.readouterr().err
    assert "the layout cannot run on 64 GPUs" in told
    assert "--rank must be from 0 to 63" in told
    assert "--rank is of --dry-run" in told


@pytest.mark.distributed
def test_a_layout_that_fails_is_told(settings: dict[str, Any]) -> None:
    """Our own rules, which refuse it first, are not asked here: megatron-core refuses."""
    settings["parallel"] = {"tensor": 3}
    with pytest.raises(RunFailed, match=r"the dry run of rank 0 failed:[\s\S]*Error"):
        dry_runs(parse_config(settings), 3, "train", [0])
