"""Known faults are found in public blends made small; sound ones raise no alarm."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fastmix_mega.audit.case import Run
from fastmix_mega.audit.report import audit, describe, harmful
from fastmix_mega.cli import main as cli
from fastmix_mega.data.indexed_format import token_dtype
from fastmix_mega.data.indexed_writer import IndexedWriter
from fastmix_mega.errors import UserError
from tests.fastmix_mega.audit.blends import FAULTY, SOUND, Public
from tests.tiny import SOURCES


def found(given: Public, folder: Path) -> set[tuple[str, str]]:
    (folder / "blend").write_text(given.text)
    run = Run(given.budget, given.seq_length, open_files=100_000, intended=given.intended)
    cases, findings = audit(folder / "blend", run, sizes=given.sizes)
    assert describe(cases, findings)
    return {(each.harm, each.rule) for each in findings if each.harm != "note"}


@pytest.mark.parametrize("name", FAULTY)
def test_known_faults_are_found(name: str, tmp_path: Path) -> None:
    assert found(FAULTY[name], tmp_path) == FAULTY[name].rules


@pytest.mark.parametrize("name", SOUND)
def test_no_false_alarm(name: str, tmp_path: Path) -> None:
    assert found(SOUND[name], tmp_path) == set()


def test_thousands_of_epochs_are_counted(tmp_path: Path) -> None:
    given = FAULTY["nemotron_thousands_of_epochs"]
    (tmp_path / "blend").write_text(given.text)
    _, findings = audit(tmp_path / "blend", Run(given.budget), sizes=given.sizes)
    # 0.25% of 20T in 12M tokens.
    assert "textbook would be read 4,167 times: 0.250% of the run" in findings[0].text


@pytest.fixture
def blend(corpora: Path, tmp_path: Path) -> Path:
    """Our own token files in Megatron's format: sound for 10,000 tokens."""
    words = [f"0.25 {corpora / name}" for name in SOURCES]
    (tmp_path / "blend.txt").write_text("\n".join(words))
    return tmp_path / "blend.txt"


def rules(blend: Path, **run: object) -> dict[str, str]:
    options = {"budget": 10_000, "seq_length": 16} | run
    _, findings = audit(blend, Run(**options))
    return {each.rule: each.harm for each in findings}


def test_our_own_files_are_sound(blend: Path) -> None:
    assert rules(blend) == {}


def test_a_prefix_that_does_not_open(blend: Path) -> None:
    blend.write_text(blend.read_text() + " 0.1 /nowhere/text_document")
    assert rules(blend) == {"files": "fails", "sizes": "note"}


def test_a_target_inside_a_source(blend: Path, corpora: Path) -> None:
    assert rules(blend, targets=[str(corpora / "target")]) == {}
    assert rules(blend, targets=[str(corpora / "beta")]) == {"targets": "wrong"}
    with pytest.raises(UserError, match="--target"):
        rules(blend, targets=["nowhere"])


def write_source(prefix: Path, tokenizer: str, token: int) -> None:
    manifest = {"tokenizer_sha256": tokenizer, "vocab_size": 300, "eod": 2}
    with IndexedWriter(prefix, token_dtype(300), manifest) as writer:
        for _ in range(100):
            writer.add_document(np.append(np.full(50, token), 2))


def test_tokenizers_that_differ_and_equal_content(blend: Path, tmp_path: Path) -> None:
    write_source(tmp_path / "one", "ab" * 32, 7)
    blend.write_text(blend.read_text() + f" 0.25 {tmp_path / 'one'}")
    assert rules(blend) == {"tokenizers": "wrong"}
    write_source(tmp_path / "two", "ab" * 32, 7)
    blend.write_text(f"0.5 {tmp_path / 'one'} 0.5 {tmp_path / 'two'}")
    assert rules(blend) == {"twice": "wrong"}


def test_limits_of_the_machine(blend: Path) -> None:
    assert rules(blend, open_files=110) == {"too many files": "fails"}
    assert rules(blend, max_maps=1510) == {"too many files": "fails"}


def test_weights_of_zero_and_short_sources(blend: Path) -> None:
    assert rules(blend, seq_length=6000) == {"short": "fails", "rounding": "wrong"}
    blend.write_text(blend.read_text().replace("0.25", "0", 1))
    assert rules(blend) == {"zero": "fails"}


def test_the_command(blend: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["audit", str(blend), "--budget-tokens", "10k", "--seq-length", "16"]
    assert cli.main([*words, "--open-files", "1000"]) == 0
    shown = capsys.readouterr().out
    assert "megatron, 4 sources" in shown
    assert "nothing was found" in shown
    words[3] = "1M"
    assert cli.main(words) == 1
    assert "THE RUN WOULD BE WRONG: alpha would be read 49" in capsys.readouterr().out
    meant = {
        "schema": "fastmix-mixture/1",
        "sources": [{"name": n, "weight": 0.25} for n in "abcd"],
    }
    (tmp_path / "meant.json").write_text(json.dumps(meant))
    words[3] = "10k"
    assert cli.main([*words, "--intended", str(tmp_path / "meant.json")]) == 1
    assert "100.0% of the tokens go elsewhere" in capsys.readouterr().out
    (tmp_path / "odd").write_text("what is this")
    assert cli.main(["audit", str(tmp_path / "odd"), "--budget-tokens", "1M"]) == 2


def test_our_mixture_file(tmp_path: Path, corpora: Path) -> None:
    """A source of several files is looked at file by file, and compared as one."""
    sources: list[dict[str, object]] = [
        {"name": "two", "weight": 0.5, "prefix": [str(corpora / n) for n in ("alpha", "beta")]},
        {"name": "gamma", "weight": 0.5, "prefix": str(corpora / "gamma")},
    ]
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"schema": "fastmix-mixture/1", "sources": sources}))
    cases, findings = audit(path, Run(10_000, 16, intended={"two": 0.5, "gamma": 0.5}))
    assert findings == []
    assert [leaf.file is not None for leaf in cases[0].leaves] == [True] * 3
    sources[1]["prefix"] = str(corpora / "beta")
    path.write_text(json.dumps({"schema": "fastmix-mixture/1", "sources": sources}))
    _, findings = audit(path, Run(10_000, 16))
    assert [finding.rule for finding in findings] == ["twice"]
    assert harmful(findings)
