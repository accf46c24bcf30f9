"""olmix's two tables as evidence, read as its own loader reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastmix_mega.cli import main as cli
from fastmix_mega.errors import UserError
from fastmix_mega.export.swarm_evidence import import_olmix, read_evidence

RATIOS = """Unnamed: 0,run,name,index,dclm,code
0,a1,first,0,0.75,0.25
1,a2,second,1,0.5,0.503
2,a3,third,2,0.1,0.9
"""
METRICS = """run_id,name,arc_bpb,hellaswag_bpb
a1,first,1.25,0.9
a2,second,1.5,
b7,other,1,1
"""


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "ratios.csv").write_text(RATIOS)
    (tmp_path / "metrics.csv").write_text(METRICS)
    return tmp_path / "ratios.csv", tmp_path / "metrics.csv"


def test_two_tables_become_evidence(tables: tuple[Path, Path], tmp_path: Path) -> None:
    lines = import_olmix(*tables, tmp_path / "e.json")
    content = read_evidence(tmp_path / "e.json")
    assert content["sources"] == ["dclm", "code"]
    first, second = content["runs"]
    assert first == {
        "run": "a1",
        "mixture": {"dclm": 0.75, "code": 0.25},
        "metrics": {"arc_bpb": 1.25, "hellaswag_bpb": 0.9},
    }
    # Within 1% of 1, as olmix allows; and an empty metric.
    assert second["mixture"]["dclm"] == pytest.approx(0.5 / 1.003)
    assert second["metrics"] == {"arc_bpb": 1.5}
    assert any("does not have them: a3" in line for line in lines)
    assert any("does not have them: b7" in line for line in lines)
    assert any("1 metrics are empty" in line for line in lines)


def test_the_command(tables: tuple[Path, Path], tmp_path: Path) -> None:
    words = ["import", str(tables[0]), "--from", "olmix", "--output", str(tmp_path / "e.json")]
    assert cli.main([*words, "--metrics", str(tables[1])]) == 0
    assert len(read_evidence(tmp_path / "e.json")["runs"]) == 2
    assert cli.main(words) == 2


@pytest.mark.parametrize(
    ("ratios", "message"),
    [
        ("dclm,code\n1,0\n", "no column run"),
        ("run,name\na1,x\n", "no columns of numbers"),
        ("run,dclm,code\na1,0.5,0.2\n", "sum to 0.7"),
        ("run,dclm,code\na1,-0.5,1.5\n", "negative"),
        ("run,dclm,code\na1,1,0\na1,1,0\n", "stands twice"),
        ("run,dclm,dclm\na1,1,0\n", "column twice"),
        ("run,dclm,code\nz,1,0\n", "no run of"),
    ],
)
def test_broken(tables: tuple[Path, Path], tmp_path: Path, ratios: str, message: str) -> None:
    tables[0].write_text(ratios)
    with pytest.raises(UserError, match=message):
        import_olmix(*tables, tmp_path / "e.json")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(UserError, match="no evidence file"):
        read_evidence(tmp_path / "x.json")
