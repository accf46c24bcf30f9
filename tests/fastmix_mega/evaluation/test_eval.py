"""`fastmix eval` on a small trained model: held-out losses, and tasks of lm-evaluation-harness."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fastmix_mega.cli import main as cli
from fastmix_mega.configuration import parse_config
from fastmix_mega.data.run_inputs import open_inputs
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.evaluation.generate import greedy
from fastmix_mega.evaluation.harness import cut_at, until
from fastmix_mega.evaluation.model import AnsweringModel
from fastmix_mega.evaluation.scoring import Continuation, score
from fastmix_mega.files import read_jsonl
from fastmix_mega.methods.fixed import FixedMixture
from fastmix_mega.model.presets import resolve_shape
from fastmix_mega.parallel import layout as parallel_layout
from fastmix_mega.training import trainer
from fastmix_mega.weights.init_from import open_start
from tests.launch import forked
from tests.tiny import tiny_settings

QUESTIONS: list[dict[str, Any]] = [
    {"text": "from numpy import", "choices": ["array", "the", "version"], "answer": 0},
    {"text": "def", "choices": ["return", "import numpy"], "answer": 1},
    {"text": "array of", "choices": ["the", "a", "numpy", "type"], "answer": 2},
    {"text": "This is", "choices": ["a module", "import", "numeric"], "answer": 0},
    {"text": "see the", "choices": ["docs", "random", "matrix"], "answer": 1},
]


@pytest.fixture(scope="module")
def settings_of_run(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    settings = tiny_settings(corpora, tmp_path_factory.mktemp("eval") / "run")
    settings["train"] |= {"steps": 12, "schedule": {"warmup": 1, "peak": 1e-2}}
    sets = [{"name": "unseen", "prefix": str(corpora / "target")}]
    return settings | {"evaluation": {"sequences": 7, "sets": sets, "holdout": 8}}


@pytest.fixture(scope="module")
def run(settings_of_run: dict[str, Any]) -> Path:
    trainer.run(FixedMixture(parse_config(settings_of_run)))
    return Path(settings_of_run["run_dir"])


@pytest.fixture
def model(settings_of_run: dict[str, Any], run: Path) -> Iterator[AnsweringModel]:
    start = open_start(run)
    config = parse_config(settings_of_run | {"model": start.model.model_dump()})
    with parallel_layout.start(config.parallel) as layout:
        yield AnsweringModel(config, resolve_shape(start.model, 1), layout, start)


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """Three tasks over a file: multiple choice, perplexity, and an answer in words."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps(each) + "\n" for each in QUESTIONS))
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
    }
    choice = {
        "task": "own_choice",
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    rolling = {
        "task": "own_perplexity",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    }
    words = {
        "task": "own_words",
        "output_type": "generate_until",
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{choices[0]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 5, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    }
    for task in (choice, rolling, words):
        (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(common | task))
    return folder


def test_held_out_losses_are_those_of_the_run(
    run: Path,
    settings_of_run: dict[str, Any],
    model: AnsweringModel,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of sets and held-out ends as the run told them; of targets as one by one."""
    assert model is not None
    wanted = [row["eval"] for row in read_jsonl(run / "metrics.jsonl") if "eval" in row][-1]
    inputs = open_inputs(parse_config(settings_of_run))
    for target in inputs.targets:
        texts = torch.from_numpy(target.samples(torch.arange(7).numpy()))
        logits = model.logits(texts[:, :-1])
        entropy = torch.nn.functional.cross_entropy(logits.flatten(0, 1), texts[:, 1:].flatten())
        wanted[target.name] = entropy.item()
    assert sorted(wanted) == sorted(
        ["unseen", *(f"held_out/{s}" for s in ("alpha", "beta", "gamma", "delta")), "near", "far"]
    )
    require_losses(run, wanted)
    del capsys


def require_losses(run: Path, wanted: dict[str, float], *words: str, processes: int = 1) -> None:
    forked("eval", str(run), *words, processes=processes)
    told = json.loads((run / "evaluations" / "step_12.json").read_text())
    assert told["checkpoint"]["step"] == 12
    found = {each["name"]: each["loss"] for each in told["sets"]}
    assert found == pytest.approx(wanted, rel=1e-5)
    for each in told["sets"]:
        assert each["perplexity"] == pytest.approx(math.exp(each["loss"]))
        assert each["kind"] == ("target" if each["name"] in ("near", "far") else "held-out")


@pytest.mark.distributed
@pytest.mark.parametrize("words", [[], ["parallel.tensor=2"], ["parallel.pipeline=2"]], ids=str)
def test_held_out_losses_under_every_layout(run: Path, words: list[str]) -> None:
    forked("eval", str(run), "--output", str(run / "one.json"))
    told = json.loads((run / "one.json").read_text())
    require_losses(run, {each["name"]: each["loss"] for each in told["sets"]}, *words, processes=2)


def alone(model: AnsweringModel, context: list[int], tokens: list[int]) -> float:
    """The continuation's log-probability, by itself and without padding."""
    text = torch.tensor([context + tokens])
    logs = model.logits(text[:, :-1])[0].double().log_softmax(-1)
    places = range(len(context) - 1, text.shape[1] - 1)
    return sum(logs[at, text[0, at + 1]].item() for at in places)


def test_scores_do_not_depend_on_the_batch(model: AnsweringModel) -> None:
    random = torch.Generator().manual_seed(1)
    texts = [torch.randint(3, 290, (size,), generator=random).tolist() for size in (3, 9, 5, 12)]
    asked = [Continuation(text[:2], text[2:]) for text in texts]
    asked.append(Continuation(texts[0][:1], greedy(model, [texts[0][:1]], 4, ())[0]))
    found = score(model, asked, batch=2, length=16)
    for each, one in zip(found, asked, strict=True):
        assert each.log_probability == pytest.approx(
            alone(model, one.context, one.tokens), rel=1e-5
        )
    assert [each.is_greedy for each in found] == [False, False, False, False, True]
    short = score(model, [asked[3]], batch=1, length=11)[0]
    assert asked[3].cut(11).context == asked[3].context
    assert asked[3].cut(10).context == asked[3].context[1:]
    assert short.log_probability == pytest.approx(found[3].log_probability, rel=1e-5)


def results(run: Path, tasks: Path, *words: str, processes: int = 1) -> dict[str, Any]:
    output = tasks / f"out{processes}.json"
    command = ["eval", str(run), "--tasks", "own_choice,own_perplexity,own_words"]
    command += ["--include-path", str(tasks), "--batch-size", "3", "--output", str(output)]
    _, told = forked(*command, *words, processes=processes)
    assert "own_choice" in told
    found: dict[str, Any] = json.loads(output.read_text())
    assert found["lm_eval"]
    return found["results"]


@pytest.mark.distributed
def test_tasks_give_what_the_model_says(
    run: Path, tasks: Path, model: AnsweringModel, settings_of_run: dict[str, Any]
) -> None:
    """Accuracy, perplexity and answers, calculated here without the harness."""
    tokenizer = Tokenizer(settings_of_run["tokenizer"])

    def encode(text: str) -> list[int]:
        return [int(token) for token in tokenizer.encode([text])[0]]

    right, bits, length, exact = 0, 0.0, 0, 0
    for question in QUESTIONS:
        context = encode(str(question["text"]))
        logs = []
        for choice in question["choices"]:
            whole = encode(f"{question['text']} {choice}")
            logs.append(alone(model, context, whole[len(context) :]))
        right += logs.index(max(logs)) == question["answer"]
        bits -= alone(model, [tokenizer.eod], context) / math.log(2)
        length += len(str(question["text"]).encode())
        new = greedy(model, [context], 5, {tokenizer.eod}, until(tokenizer, ["\n"]))[0]
        answer = cut_at(tokenizer.decode([t for t in new if t != tokenizer.eod]), ["\n"])
        exact += answer == question["choices"][0]
    for words in ([], ["parallel.tensor=2"]):
        found = results(run, tasks, *words, processes=2)
        assert found["own_choice"]["acc,none"] == pytest.approx(right / len(QUESTIONS))
        assert found["own_perplexity"]["bits_per_byte,none"] == pytest.approx(bits / length)
        assert found["own_words"]["exact_match,none"] == exact / len(QUESTIONS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", "no_such_task_at_all"], "has no task 'no_such_task_at_all'"),
        (["--tasks", "x", "--include-path", "/none"], "/none is no folder"),
        (["--tasks", ","], "names no task"),
        (["parallel.context=2"], "runs under tensor, pipeline and data parallelism"),
        (["parallel.tensor=2"], "does not divide 1 process"),
    ],
)
def test_mistakes(
    run: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["eval", str(run), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_library_says_how_to_install_it(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    assert cli.main(["eval", str(run), "--tasks", "arc_easy"]) == 2
    assert "pip install 'fastmix-mega[eval]'" in capsys.readouterr().err


def test_nothing_to_evaluate(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["targets=[]", "evaluation.sets=[]", "evaluation.holdout=0"]
    assert cli.main(["eval", str(run), *words]) == 2
    assert "names nothing to evaluate" in capsys.readouterr().err
