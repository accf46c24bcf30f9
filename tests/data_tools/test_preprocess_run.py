"""A run that is shared, killed, spoiled or disturbed leaves the same bytes, or says why not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_tools import merge, verify
from fastmix_mega.data.indexed_reader import IndexedTokens
from tests.data_tools.plain_corpus import content, run, text


def test_shares_of_an_array_job_merge_to_the_whole(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_tools.inputs.SMALLEST_RANGE", 20_000)
    source = str(corpus / "all.jsonl")
    assert run(corpus, tmp_path / "one", source) == 0
    shares = []
    for number in range(1, 8):
        shares.append(str(tmp_path / f"share{number}"))
        assert run(corpus, Path(shares[-1]), source, "--task", f"{number}/7") == 0
    assert merge.main([*shares, "--output-prefix", str(tmp_path / "merged")]) == 0
    assert content(tmp_path / "merged") == content(tmp_path / "one")
    assert verify.main([str(tmp_path / "merged"), "--deep"]) == 0


SLOW_START = """
import sys
import data_tools.inputs as inputs
inputs.SMALLEST_RANGE = 4_000
from data_tools import preprocess
sys.exit(preprocess.main(sys.argv[1:]))
"""


@pytest.mark.distributed
def test_kill_at_any_moment_then_resume_is_byte_identical(
    corpus: Path, whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    words = [str(corpus / "all.jsonl"), "--tokenizer", str(corpus / "t.model")]
    command = [sys.executable, "-c", SLOW_START, *words, "--output-prefix", str(output)]
    draw, killed, kept = random.Random(5), 0, 0
    for _ in range(6):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
        target = len(list(tmp_path.glob("out.parts/*.part"))) + draw.randint(1, 8)
        while process.poll() is None and len(list(tmp_path.glob("out.parts/*.part"))) < target:
            time.sleep(0.001)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        process.communicate()
        kept = max(kept, len(list(tmp_path.glob("out.parts/*.part"))))
        if output.with_suffix(".manifest.json").exists():
            break
    assert killed > 0
    assert kept > 0
    assert subprocess.run(command, check=False).returncode == 0
    assert content(output) == content(whole)
    assert not Path(f"{output}.parts").exists()


def test_a_torn_part_is_made_again(
    corpus: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_tools.inputs.SMALLEST_RANGE", 20_000)
    source, output = str(corpus / "all.jsonl"), tmp_path / "out"
    monkeypatch.setattr("data_tools.preprocess_run.join", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(corpus, output, source)
    monkeypatch.undo()
    monkeypatch.setattr("data_tools.inputs.SMALLEST_RANGE", 20_000)
    part = sorted(tmp_path.glob("out.parts/*.part"))[2]
    damaged = bytearray(part.read_bytes())
    damaged[7] ^= 1
    part.write_bytes(damaged)
    assert run(corpus, output, source) == 0
    assert content(output) == content(whole)


def test_other_inputs_are_not_mixed_into_an_unfinished_run(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (corpus / "all.jsonl").read_text()
    source = tmp_path / "in.jsonl"
    source.write_text(lines)
    (tmp_path / "second.jsonl").write_text("{\n")
    output = tmp_path / "out"
    assert run(corpus, output, str(source), str(tmp_path / "second.jsonl")) == 2
    assert "second.jsonl:1: not JSON" in capsys.readouterr().err
    assert run(corpus, output, str(source)) == 2
    assert "other inputs" in capsys.readouterr().err
    assert run(corpus, output, str(source), "--fresh") == 0


def test_bad_lines_have_their_line_in_the_file(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_tools.inputs.SMALLEST_RANGE", 500)
    rows = [json.dumps({"text": text(number)}) for number in range(300)]
    wrong = [7, 120, 121, 299]
    for number in wrong:
        rows[number] = "{"
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(rows) + "\n")
    assert run(corpus, tmp_path / "out", str(source), "--max-bad", "4") == 0
    kept = [json.loads(line) for line in (tmp_path / "out.bad.jsonl").read_text().splitlines()]
    assert [row["line"] for row in kept] == [number + 1 for number in wrong]
    assert IndexedTokens(tmp_path / "out").num_documents == 296


def test_a_dead_worker_is_an_error(
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("data_tools.preprocess_run.make_encoder", dying)
    monkeypatch.setattr("data_tools.inputs.SMALLEST_RANGE", 20_000)
    source = str(corpus / "all.jsonl")
    assert run(corpus, tmp_path / "out", source, "--workers", "2") == 1
    assert "SIGKILL" in capsys.readouterr().err
    assert not (tmp_path / "out.bin").exists()


def dying(_job: object) -> object:
    os.kill(os.getpid(), signal.SIGKILL)
    return None
