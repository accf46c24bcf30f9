"""No output over an input, nor over a file that is not ours, however it is spelled."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
from pathlib import Path

import pytest

from data_tools import (
    build_corpora,
    dedup,
    merge,
    prepare,
    preprocess,
    preprocess_choices,
    split,
    train_tokenizer,
)
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.locking import Use, hold_lock, this_process
from tests.data_tools.conftest import Tokenize

LINE = '{"text":"hello world"}\n'


def write(name: str, content: str = LINE) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_a_corpus_called_as_the_prefix_stays(tokenize: Tokenize) -> None:
    corpus = write("web.json")
    assert tokenize("web.json", out="web") == 0
    assert corpus.read_text() == LINE
    manifest = IndexedTokens("web").manifest
    assert manifest is not None
    assert manifest.documents == 1
    # And again: the same command changes nothing.
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert tokenize("web.json", out="web") == 0
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_a_pattern_leaves_our_own_files_out(
    tokenize: Tokenize, capsys: pytest.CaptureFixture[str]
) -> None:
    write("d/all.json")
    write("d/x.json", '{"text":"two"}\nbad\n')
    for _ in range(2):
        assert tokenize("d/*.json*", "--max-bad", "1", out="d/all") == 0
        assert IndexedTokens("d/all").num_documents == 2
    said = capsys.readouterr().err
    assert "d/all.manifest.json: left out" in said
    assert "d/all.bad.jsonl: left out" in said


@pytest.mark.parametrize("how", ["itself", "symlink", "hard link", "dots", "folder link"])
def test_an_input_is_known_by_its_identity(
    tokenize: Tokenize, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    inside = write("q.bad.jsonl")
    Path("sub").mkdir()
    name = "q.bad.jsonl"
    if how == "symlink":
        name = "link.jsonl"
        Path(name).symlink_to(inside)
    elif how == "hard link":
        name = "hard.jsonl"
        os.link(inside, name)
    elif how == "dots":
        name = "sub/../q.bad.jsonl"
    elif how == "folder link":
        Path("here").symlink_to(".")
        name = "here/q.bad.jsonl"
    for more in ([], ["--overwrite"]):
        assert tokenize(name, *more, out="q") == 2
        assert "q.bad.jsonl would be written, but is the input" in capsys.readouterr().err
    assert inside.read_text() == LINE
    assert sorted(path.suffix for path in Path().glob("q.*")) == [".jsonl"]


def test_tokenizer_list_and_template_are_inputs(
    tokenize: Tokenize, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("a.jsonl")
    shutil.copy(model, "t.bin")
    given = ["a.jsonl", "--tokenizer", "t.bin", "--output-prefix", "t", "--overwrite"]
    assert preprocess.main(given) == 2
    assert "but is the input t.bin" in capsys.readouterr().err
    assert Path("t.bin").read_bytes() == model.read_bytes()
    write("l.idx", "a.jsonl\n")
    assert tokenize("--files-from", "l.idx", "--overwrite", out="l") == 2
    assert "but is the input l.idx" in capsys.readouterr().err


def test_files_that_are_not_ours_stay_or_are_replaced_when_asked(tokenize: Tokenize) -> None:
    write("a.jsonl")
    for name in ("o.bin", "o.idx", "o.mask.bin", "o.bad.jsonl", "o.bin.partial", "o.manifest.json"):
        foreign = write(name, "mine")
        assert tokenize("a.jsonl", out="o") == 2
        assert foreign.read_text() == "mine"
        assert not list(Path().glob("o.lock"))
        foreign.unlink()
    write("o.bin", "mine")
    assert tokenize("a.jsonl", "--overwrite", out="o") == 0
    assert IndexedTokens("o").num_documents == 1
    # A link that leads nowhere is a file of the user's too.
    Path("l.idx").symlink_to("nowhere")
    assert tokenize("a.jsonl", out="l") == 2
    assert os.readlink("l.idx") == "nowhere"


def test_another_finished_corpus_stays(
    tokenize: Tokenize, capsys: pytest.CaptureFixture[str]
) -> None:
    write("a.jsonl")
    write("b.jsonl", '{"text":"other"}\n')
    assert tokenize("a.jsonl") == 0
    before = Path("out.bin").read_bytes()
    assert tokenize("b.jsonl") == 2
    assert "was made from other inputs or settings" in capsys.readouterr().err
    assert tokenize("a.jsonl", "--text-unit", "file") == 2
    assert Path("out.bin").read_bytes() == before
    assert tokenize("b.jsonl", "--overwrite") == 0
    assert Path("out.bin").read_bytes() != before


def test_a_folder_of_parts_that_is_not_ours_stays(tokenize: Tokenize) -> None:
    write("a.jsonl")
    for name, content in (("mine.txt", "mine"), ("plan.json", "{}"), ("00000000.part", "mine")):
        mine = write(f"out.parts/{name}", content)
        for more in ([], ["--fresh"], ["--overwrite"]):
            assert tokenize("a.jsonl", *more) == 2
            assert mine.read_text() == content
        mine.unlink()
    inside = write("out.parts/00000000.json")
    assert tokenize(str(inside), "--fresh") == 2
    assert inside.read_text() == LINE


def test_a_lock_names_the_other_process(
    tokenize: Tokenize, capsys: pytest.CaptureFixture[str]
) -> None:
    write("a.jsonl")
    with hold_lock(Path("out.lock"), Use("fastmix data", "out", "another output")):
        assert tokenize("a.jsonl") == 2
    assert f"process {os.getpid()} on " in capsys.readouterr().err
    assert tokenize("a.jsonl") == 0
    foreign = write("x.lock", "mine")
    assert tokenize("a.jsonl", out="x") == 2
    assert foreign.read_text() == "mine"


def test_what_a_killed_process_left_is_made_again(tokenize: Tokenize) -> None:
    """Between the names of the files and the manifest; another command is still refused."""
    write("a.jsonl")
    write("b.jsonl", '{"text":"other"}\n')
    assert tokenize("a.jsonl") == 0
    manifest = json.loads(Path("out.manifest.json").read_text())
    Path("out.manifest.json").unlink()
    record = {"recipe": manifest["made_by"]["recipe"]}
    killed = dataclasses.replace(this_process("fastmix data", record), pid=1 << 30)
    left = json.dumps(dataclasses.asdict(killed))
    write("out.lock", left)
    assert tokenize("b.jsonl") == 2
    assert json.loads(Path("out.lock").read_text()) == json.loads(left)
    unfinished = Path(".out.idx.abcdefgh")
    unfinished.touch()
    assert tokenize("a.jsonl") == 0
    assert not Path("out.lock").exists()
    assert not unfinished.exists()


def test_every_tool(tokenize: Tokenize, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("a.jsonl")
    write("b.jsonl", '{"text":"quite another text of many words"}\n')
    assert tokenize("a.jsonl", out="p") == 0
    mine = write("s_train.json", "mine")
    assert split.main(["p", "--output-prefix", "s"]) == 0
    assert mine.read_text() == "mine"
    kept = Path("s_train.bin").read_bytes()
    calls = (
        (split.main, ["s_train", "--output-prefix", "s"]),
        (merge.main, ["p", "--output-prefix", "./p"]),
        (merge.main, ["p", "--output-prefix", "s_train"]),
        (dedup.main, ["--sources", "a.jsonl", "--targets", "b.jsonl", "--output", "b.jsonl"]),
        (dedup.main, ["--sources", "a.jsonl", "--targets", "b.jsonl", "--output", "a.jsonl"]),
        (train_tokenizer.main, ["a.jsonl", "--output", "a.jsonl", "--vocab-size", "290"]),
        (train_tokenizer.main, ["a.jsonl", "--output", "p.bin", "--vocab-size", "290"]),
    )
    before = {path: path.read_bytes() for path in Path().iterdir()}
    for main, words in calls:
        assert main(words) == 2, words
    assert {path: path.read_bytes() for path in Path().iterdir()} == before
    assert Path("s_train.bin").read_bytes() == kept
    for main, words in (calls[1], calls[3], calls[5]):
        # What is an input is never replaced.
        assert main([*words, "--overwrite"]) == 2
    assert {path: path.read_bytes() for path in Path().iterdir()} == before
    quiz = write("quiz.json", '{"question":"q","choices":["a","b"],"answer":0}\n')
    words = ["quiz.json", "--tokenizer", str(model), "--output-prefix", "quiz"]
    assert preprocess_choices.main(words) == 0
    assert quiz.read_text().startswith('{"question"')
    assert "would be written, but is the input" in capsys.readouterr().err


def test_folders_of_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`prepare` and `build_corpora` replace what they have written, and nothing else."""
    monkeypatch.chdir(tmp_path)
    dice = random.Random(0)
    for number in range(8):
        words = ("".join(dice.choices("abcdefghijklmnop", k=5)) for _ in range(80))
        write(f"docs/{number}.txt", " ".join(words))
    corpus = {"name": "a", "kind": "files", "root": "docs", "patterns": ["*.txt"]}
    write("c.yaml", json.dumps({"vocab_size": 300, "sources": [corpus]}))
    mine = write("out/text/sources/a.jsonl", "mine")
    other = write("out/text/sources/other.jsonl", "mine")
    for main in (build_corpora.main, prepare.main):
        assert main(["c.yaml", "--output", "out"]) == 2
        assert mine.read_text() == "mine"
    mine.unlink()
    assert prepare.main(["c.yaml", "--output", "out"]) == 0
    assert mine.read_text() != "mine"
    assert other.read_text() == "mine"
    tokens = write("x/sources/a.idx", "mine")
    assert prepare.main(["c.yaml", "--output", "x"]) == 2
    assert tokens.read_text() == "mine"
    assert not Path("x/text").exists()
    # A corpus may not be read from where it is written.
    corpus["root"], corpus["patterns"] = "out/text/sources", ["*.jsonl"]
    write("d.yaml", json.dumps({"min_document": 1, "sources": [corpus]}))
    assert build_corpora.main(["d.yaml", "--output", "out", "--overwrite"]) == 2
