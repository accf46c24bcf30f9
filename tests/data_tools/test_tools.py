"""From text to token files, as a user runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from data_tools import build_corpora, prepare, preprocess
from data_tools.texts import MetadataCorpus, read_documents
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.tokenizer import Tokenizer

WORDS = Path(json.__file__).read_text().split()


def story(seed: int, words: int = 200) -> str:
    """Text that shares no word 5-gram with another seed's, but by chance."""
    import random

    return " ".join(random.Random(seed).choices(WORDS, k=words))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of text with copies and near-copies planted in and between them."""
    base = tmp_path_factory.mktemp("text")
    for name, first in (("tales", 0), ("notes", 1000), ("goal", 2000)):
        (base / name).mkdir()
        for number in range(40):
            (base / name / f"{number:02}.txt").write_text(story(first + number))
    whole = story(5)
    (base / "tales" / "copy.txt").write_text(whole)
    (base / "notes" / "spaces.txt").write_text(whole.replace(" ", "\n"))
    (base / "notes" / "near.txt").write_text(whole.rsplit(" ", 12)[0] + " and another end")
    (base / "notes" / "goal.txt").write_text("A new start. " + story(2003))
    (base / "corpora.yaml").write_text(
        """
        vocab_size: 400
        sources:
          - {name: tales, kind: files, root: tales, patterns: ["*.txt"]}
          - {name: notes, kind: files, root: notes, patterns: ["*.txt"]}
          - {name: junk, kind: shuffled, of: tales}
        targets:
          - {name: goal, kind: files, root: goal, patterns: ["*.txt"]}
        """
    )
    return base


@pytest.fixture(scope="module")
def prepared(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("prepared")
    assert prepare.main([str(folder / "corpora.yaml"), "--output", str(output)]) == 0
    return output


def texts(output: Path) -> dict[str, list[str]]:
    files = sorted((output / "text").glob("*/*.jsonl"))
    return {
        f"{path.parent.name}/{path.stem}": [
            json.loads(line)["text"] for line in path.read_text().splitlines()
        ]
        for path in files
    }


def test_no_copy_on_two_sides(prepared: Path) -> None:
    """Of each planted cluster one document stays, in one split."""
    found = texts(prepared)
    whole = [text for name, part in found.items() if "heldout" not in name for text in part]
    tale_words = story(5).split()[20:60]
    marked = [t for t in whole if " ".join(tale_words) in " ".join(t.split())]
    # A judge's document of a source is in `average` too, if it fits there.
    assert 1 <= len(marked) <= 2
    goal_words = " ".join(story(2003).split()[20:60])
    holders = [name for name, part in found.items() if any(goal_words in t for t in part)]
    assert holders in (["targets/goal"], ["judge/goal"])


def test_splits_are_disjoint(prepared: Path) -> None:
    found = texts(prepared)
    names = [name for name in found if not name.startswith("heldout")]
    for position, one in enumerate(names):
        for other in names[position + 1 :]:
            assert not set(found[one]) & set(found[other]), (one, other)
    for name in ("tales", "notes"):
        kept = found[f"sources/{name}"]
        assert len(set(kept)) == len(kept) >= 30


def test_junk_has_the_same_characters(prepared: Path) -> None:
    found = texts(prepared)
    tales = sorted("".join(sorted(text)) for text in found["sources/tales"])
    junk = sorted("".join(sorted(text)) for text in found["sources/junk"])
    assert tales == junk
    assert found["sources/tales"] != found["sources/junk"]


def test_every_file_decodes_to_its_text(prepared: Path) -> None:
    tokenizer = Tokenizer(prepared / "tokenizer.model")
    for name, documents in texts(prepared).items():
        file = IndexedTokens(prepared / name)
        assert file.num_documents == len(documents)
        assert file.manifest is not None
        assert file.manifest.tokenizer_sha256 == tokenizer.sha256
        start = 0
        for length, text in zip(file.lengths, documents, strict=True):
            tokens = file.tokens[start : start + length]
            assert tokens[-1] == tokenizer.eod
            assert tokenizer.decode(tokens[:-1]) == text
            start += int(length)


def test_the_result_is_deterministic(prepared: Path, folder: Path, tmp_path: Path) -> None:
    """Run again after an interruption, elsewhere: the same bytes."""
    output = tmp_path / "again"
    config = build_corpora.load_corpora_config(folder / "corpora.yaml")
    build_corpora.build_corpora(config, output, folder)
    (output / "text" / "sources" / "tales.jsonl").write_text("torn")
    assert prepare.main([str(folder / "corpora.yaml"), "--output", str(output)]) == 0
    for path in sorted(prepared.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (output / path.relative_to(prepared)).read_bytes(), path


def test_a_finished_preparation_is_left_alone(
    prepared: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (prepared / "tokenizer.model").stat().st_mtime_ns
    assert prepare.main([str(folder / "corpora.yaml"), "--output", str(prepared)]) == 0
    assert "is ready" in capsys.readouterr().out
    assert (prepared / "tokenizer.model").stat().st_mtime_ns == before


def run_preprocess(prepared: Path, lines: bytes, directory: Path, *options: str) -> int:
    source = directory / "in.jsonl"
    source.write_bytes(lines)
    tokenizer = str(prepared / "tokenizer.model")
    output = str(directory / "out")
    arguments = [
        str(source),
        "--tokenizer",
        tokenizer,
        "--output-prefix",
        output,
        "--overwrite",
        *options,
    ]
    return preprocess.main(arguments)


def test_bad_lines_stop_or_are_kept_aside(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = b'{"text": "some text"}\n'
    bad = [b"{\n", b'{"text": 3}\n', b'{"other": "x"}\n', b'{"text": ""}\n', b'{"text": "\xff"}\n']
    lines = b"".join(good + line for line in bad)
    assert run_preprocess(prepared, lines, tmp_path) == 2
    assert "in.jsonl:2: not JSON" in capsys.readouterr().err
    assert not (tmp_path / "out.bin").exists()
    assert run_preprocess(prepared, lines, tmp_path, "--max-bad", "5") == 0
    assert IndexedTokens(tmp_path / "out").num_documents == 5
    kept = [json.loads(line) for line in (tmp_path / "out.bad.jsonl").read_text().splitlines()]
    assert [row["line"] for row in kept] == [2, 4, 6, 8, 10]


def test_workers_do_not_change_the_result(prepared: Path, tmp_path: Path) -> None:
    lines = b"".join(json.dumps({"text": story(n)}).encode() + b"\n" for n in range(600))
    contents = []
    for workers in ("1", "2"):
        assert run_preprocess(prepared, lines, tmp_path, "--workers", workers) == 0
        contents.append((tmp_path / "out.bin").read_bytes())
    assert contents[0] == contents[1]


@given(some.text(min_size=1, max_size=100))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_unicode_text_survives(prepared: Path, tmp_path: Path, text: str) -> None:
    line = json.dumps({"text": text}).encode() + b"\n"
    tolerant = ("--max-bad", "1", "--max-bad-share", "1", "--allow-empty")
    if run_preprocess(prepared, line, tmp_path, *tolerant) != 0:
        pytest.fail("preprocess failed")
    tokenizer = Tokenizer(prepared / "tokenizer.model")
    file = IndexedTokens(tmp_path / "out")
    if file.num_documents:
        assert tokenizer.decode(file.tokens[:-1]) == text
    else:
        # Lone surrogates are no text in any encoding: the line is listed as bad.
        assert (tmp_path / "out.bad.jsonl").exists()


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("sources: []", "at least 1"),
        ("sources: [{name: a, kind: nothing}]", "kind"),
        ("sources: [{name: a, kind: shuffled, of: b}]", "which is no source"),
        (
            "sources: [{name: a, kind: files, root: none, patterns: ['*']}]",
            "is not a folder",
        ),
        ("vocab: 3\nsources: [{name: a, kind: metadata}]", "Extra inputs"),
        ("sources: [{name: a, kind: metadata}, {name: b, kind: shuffled, of: b}]", "no source"),
        (
            "sources: [{name: a, kind: metadata}]\ntargets: [{name: t, kind: shuffled, of: a}]",
            "never a target",
        ),
        (
            "sources: [{name: a, kind: metadata}, {name: b, kind: shuffled, of: t}]\n"
            "targets: [{name: t, kind: pydoc_topics}]",
            "which is no source",
        ),
        ("sources: [{name: a, kind: files, root: ., patterns: [/x]}]", "relative to the root"),
        ("sources: [{name: a, kind: files, root: ., patterns: ['']}]", "relative to the root"),
        (
            "sources: [{name: a, kind: files, root: 'package:no.such', patterns: ['*']}]",
            "no.such is not installed",
        ),
        (
            "sources: [{name: a, kind: metadata}]\n"
            "targets: [{name: t, kind: files, root: ., patterns: ['c.yaml']}]\nmin_document: 1",
            "needs at least 2",
        ),
    ],
)
def test_mistakes_in_the_corpora_file(
    tmp_path: Path, yaml: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml)
    assert build_corpora.main([str(path), "--output", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder of its own, to change: two sources, prepared."""
    for name, first in (("tales", 0), ("notes", 1000)):
        (tmp_path / name).mkdir()
        for number in range(12):
            (tmp_path / name / f"{number:02}.txt").write_text(story(first + number))
    (tmp_path / "c.yaml").write_text(
        """
        vocab_size: 400
        sources:
          - {name: tales, kind: files, root: tales, patterns: ["*.txt"]}
          - {name: notes, kind: files, root: notes, patterns: ["*.txt"]}
        """
    )
    assert prepare.main([str(tmp_path / "c.yaml"), "--output", str(tmp_path / "out")]) == 0
    return tmp_path


def again(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert prepare.main([str(folder / "c.yaml"), "--output", str(folder / "out")]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "lost", ["tokenizer.model", "sources/tales.bin", "judge/average.manifest.json"]
)
def test_a_lost_file_is_made_again(
    small: Path, lost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (small / "out" / lost).read_bytes()
    (small / "out" / lost).unlink()
    assert "is ready" not in again(small, capsys)
    assert (small / "out" / lost).read_bytes() == content
    assert "is ready" in again(small, capsys)


def test_a_changed_input_is_read_again(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (small / "tales" / "00.txt").write_text("another beginning " + story(5000))
    assert "is ready" not in again(small, capsys)
    assert any("another beginning" in t for part in texts(small / "out").values() for t in part)


def test_a_renamed_source_leaves_nothing_behind(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = small / "out" / "sources" / "mine.bin"
    mine.write_bytes(b"a user's own file")
    config = small / "c.yaml"
    config.write_text(config.read_text().replace("name: tales", "name: fables"))
    again(small, capsys)
    left = {path.stem for path in (small / "out" / "sources").glob("*.bin")}
    assert left == {"fables", "notes", "mine"}
    assert not any("tales" in path.stem for path in (small / "out").rglob("*.*"))


def test_text_inside_another_corpus_is_a_copy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Docstrings stand in their code: as a corpus beside it they would leak across splits."""
    (tmp_path / "code").mkdir()
    for number in range(9):
        words = story(number, 120).replace('"', "").replace("\\", "")
        numbers = ", ".join(str(number * 1000 + each) for each in range(200))
        (tmp_path / "code" / f"{number}.py").write_text(f'"""{words}"""\nx = [{numbers}]\n')
    (tmp_path / "c.yaml").write_text(
        """
        sources:
          - {name: code, kind: files, root: code, patterns: ["*.py"]}
          - {name: documentation, kind: docstrings, root: code, patterns: ["*.py"]}
        """
    )
    assert build_corpora.main([str(tmp_path / "c.yaml"), "--output", str(tmp_path / "out")]) == 2
    assert "documentation has only 0 different documents" in capsys.readouterr().err


def test_the_place_of_a_folder_changes_nothing(folder: Path, tmp_path: Path) -> None:
    """Junk too is the same when the same files lie elsewhere."""
    made = []
    for place in (tmp_path / "here", tmp_path / "there" / "deeper"):
        shutil.copytree(folder / "tales", place / "tales")
        (place / "c.yaml").write_text(
            f"""
            sources:
              - {{name: tales, kind: files, root: "{place / "tales"}", patterns: ["*.txt"]}}
              - {{name: junk, kind: shuffled, of: tales}}
            """
        )
        assert build_corpora.main([str(place / "c.yaml"), "--output", str(place / "out")]) == 0
        files = sorted((place / "out").rglob("*.jsonl"))
        made.append({path.relative_to(place): path.read_bytes() for path in files})
    assert made[0] == made[1]


def test_our_own_readme_is_no_training_text() -> None:
    names = [name for name, _ in read_documents(MetadataCorpus(name="m", kind="metadata"), Path())]
    assert "metadata/torch" in names
    assert "metadata/fastmix_mega" not in names


def test_a_place_that_cannot_be_written_is_one_line(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("a file where a folder must be")
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "good"}\n')
    arguments = [str(source), "--tokenizer", str(prepared / "tokenizer.model")]
    assert preprocess.main([*arguments, "--output-prefix", str(tmp_path / "out" / "x")]) == 2
    assert "out" in capsys.readouterr().err
