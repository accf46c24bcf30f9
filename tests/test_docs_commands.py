"""Every command in the pages: it parses, and it runs on tiny inputs. The docs must not lie.

What is too slow, or needs a cluster, is parsed only, and named below with the reason.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fastmix_mega.cli import main as cli
from tests.docs_commands import PAGES, ROOT, Command, commands_of, mentions_in, write_sandbox

COMMANDS = [command for page in PAGES for command in commands_of(page)]

PARSED_ONLY = {
    r"^make ": "a target of the Makefile; CI runs demo and test",
    r"^(JOB=\$\()?sbatch ": "needs Slurm; tests/slurm runs the scripts",
    r"^python -m research\.": "trains six models or more; `fastmix retrain` is tested",
    r"^python -m benchmarks\.": "measures speed, for minutes",
    r"data_tools\.prepare|data prepare": "reads the machine's own text, for minutes",
    r"build_instructions": "reads the machine's own text, for minutes",
    r"--tasks": "needs lm-evaluation-harness and its data",
    r"--nproc 4 parallel\.tensor=2": "four processes; tests of the evaluation run layouts",
    r"--seeds 3": "three searches in processes of their own",
    r"fastmix retrain": "nine training runs; tests/fastmix_mega/evaluation/test_retrain.py",
    r"fastmix branch": "a training a source; tests/fastmix_mega/evaluation/test_branches.py",
    r"--evidence": "needs retrained runs; tests/fastmix_mega/methods/test_run_evidence.py",
}
"""By a regular expression over the command."""

TINY = {
    r"other/mixture\.json": "runs/my/mixture.json",
    r"--vocab-size 32000": "--vocab-size 600",
    r"(fastmix audit .* --budget-tokens) 2T": r"\1 20k --seq-length 16",
    r"--workers 8": "--workers 1",
    r"--nproc \d+": "--nproc 1",
    r"--max-restarts \d+": "--max-restarts 0",  # In this process, without a launcher.
    r"(my\.yaml --gpus) 64": r"\1 2",
    r"method=regmix": "method=regmix regmix.runs=4 regmix.candidates=64 regmix.top=4 "
    "regmix.families=[linear] train.steps=6 search.warmup=1 search.every=1",
}
"""What a tiny input needs otherwise than the page's, by a regular expression."""

NOT_YET_THERE = {
    r"fastmix search configs/demo\.yaml": "runs/demo",
    r"fastmix check configs/demo\.yaml train\.steps": "runs/demo",
    r"fastmix check my\.yaml train\.steps": "runs/my",
    r"fastmix search my\.yaml method=regmix": "runs/regmix",
    r"fastmix search my\.yaml --nproc": "runs/my",
    r"train_tokenizer": "tokenizer.model",
}
"""What a command makes, and others find finished."""


def reason_not_to_run(command: Command) -> str | None:
    found = (why for pattern, why in PARSED_ONLY.items() if re.search(pattern, command.text))
    return next(found, None)


RUN = [command for command in COMMANDS if reason_not_to_run(command) is None]


class _Parsed(Exception):
    """The words were read without a complaint."""


@pytest.fixture
def parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command ends once its words are parsed."""
    parse = argparse.ArgumentParser.parse_known_args
    under_way: list[str] = []

    def parse_and_stop(self: argparse.ArgumentParser, *given: Any, **named: Any) -> Any:
        under_way.append(self.prog)
        try:
            found, rest = parse(self, *given, **named)
        finally:
            under_way.pop()
        if under_way:  # A verb's own parser, called by the command's.
            return found, rest
        assert all("=" in word and not word.startswith("-") for word in rest), rest
        raise _Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_and_stop)


def main_of(words: Sequence[str]) -> Any:
    """What runs a command's words in this process."""
    if words[:2] == ["python", "-m"]:
        module = importlib.import_module(words[2])
        return lambda: module.main()
    return lambda: cli.main(list(words[1:]))


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_it_parses(command: Command, parsing: None, monkeypatch: pytest.MonkeyPatch) -> None:
    del parsing
    words = command.words
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets
        return
    if words[0] == "sbatch":
        script = next(at for at, word in enumerate(words) if word.startswith("slurm/"))
        assert (ROOT / words[script]).is_file()
        # Slurm replaces %a in the names of logs, and nowhere else.
        assert not any("%" in word for word in words[script:]), "Slurm does not expand %"
        if "pretrain" not in words[script]:
            return
        verb = "search" if "proxy" in words[script] else "train"
        words = ["fastmix", verb, *words[script + 1 :], "--sweep-seed", "1"]
    elif command.fastmix is not None:
        words = ["fastmix", *command.fastmix]
    else:
        monkeypatch.setattr("sys.argv", words[2:])
    with pytest.raises(_Parsed):
        main_of(words)()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_verbs_and_options_in_sentences_exist(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb, *words in mentions_in(page):
        tool = words[:1] if verb == "data" else []
        if tool and not tool[0].islower():
            continue  # `fastmix data TOOL`
        with pytest.raises(SystemExit) as stopped:
            cli.main([verb, *tool, "--help"])
        assert stopped.value.code == 0
        shown = capsys.readouterr().out
        for word in words:
            option = re.match(r"--[\w-]+", word)
            assert option is None or option[0] in shown, f"{page.name}: {verb} {word}"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory, corpora: Path) -> Path:
    """The pages' files, and the runs that their commands go on from."""
    folder = tmp_path_factory.mktemp("docs")
    write_sandbox(folder, corpora)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main(["search", "configs/demo.yaml", "--nproc", "1"]) == 0
        assert cli.main(["export", "runs/demo", "--to", "huggingface", "-o", "models/own"]) == 0
        # The same run under the other names; only pooling must tell them apart.
        for name in ("my", "base", "tuned", "regmix"):
            shutil.copytree("runs/demo", f"runs/{name}")
        for seed in (1, 2, 3):
            folder_of_seed = Path(f"runs/demo/seed_{seed}")
            folder_of_seed.mkdir()
            text = Path("runs/demo/mixture.json").read_text()
            text = re.sub(r'"seed": \d+', f'"seed": {seed}', text)
            (folder_of_seed / "mixture.json").write_text(text)
            shutil.copy("runs/demo/run.json", folder_of_seed)
        shutil.copytree("models/own", "models/Qwen3-0.6B")
    return folder


@pytest.mark.parametrize("command", RUN, ids=str)
def test_it_runs(
    command: Command, sandbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "here"
    shutil.copytree(sandbox, folder)
    monkeypatch.chdir(folder)
    # A run in this process leaves behind that it was one of a launcher's.
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for pattern, made in NOT_YET_THERE.items():
        if not re.search(pattern, command.text):
            continue
        if Path(made).is_dir():
            shutil.rmtree(made)
        else:
            Path(made).unlink()
    text = command.text
    for pattern, tiny in TINY.items():
        text = re.sub(pattern, tiny, text)
    words = Command(command.page, text).fastmix
    assert words is not None, "name the command in PARSED_ONLY, or make it run here"
    assert cli.main(words) == 0


def test_every_exception_is_needed() -> None:
    texts = [command.text for command in COMMANDS]
    stale = [
        pattern
        for pattern in (*PARSED_ONLY, *TINY, *NOT_YET_THERE)
        if not any(re.search(pattern, text) for text in texts)
    ]
    # What no page says yet, or says no longer.
    allowed = {r"^python -m benchmarks\.", r"fastmix retrain", r"fastmix search my\.yaml --nproc"}
    assert set(stale) <= allowed | {r"(my\.yaml --gpus) 64"}
