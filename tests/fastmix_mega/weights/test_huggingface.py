"""Models made by transformers, started from, trained and exported, and read by transformers again.

transformers runs in processes of its own, twice for all tests (see handover/consumers.py).
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from fastmix_mega.cli import main as cli
from fastmix_mega.configuration import parse_config
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError
from fastmix_mega.evaluation.generate import greedy
from fastmix_mega.evaluation.model import AnsweringModel
from fastmix_mega.methods.registry import method_of
from fastmix_mega.model.presets import resolve_shape
from fastmix_mega.parallel import layout as parallel_layout
from fastmix_mega.planning.check import check
from fastmix_mega.training import trainer as loop
from fastmix_mega.weights.hf_export import export_huggingface
from fastmix_mega.weights.huggingface import HuggingFaceWeights
from fastmix_mega.weights.init_from import open_start
from tests.fastmix_mega.export.consumers import read_with
from tests.fastmix_mega.weights.answers import answers
from tests.fastmix_mega.weights.test_init_from import STILL
from tests.launch import forked, run_config
from tests.tiny import tiny_settings

SIZES = {
    "vocab_size": 384,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
MODELS: dict[str, dict[str, Any]] = {
    "llama": SIZES | {"model_type": "llama", "num_key_value_heads": 4, "rms_norm_eps": 1e-5},
    "llama3": SIZES
    | {"model_type": "llama", "rope_theta": 5e5, "rope_scaling": LLAMA3, "shard": "200KB"},
    "mistral": SIZES | {"model_type": "mistral", "sliding_window": None, "dtype": "bfloat16"},
    "qwen2": SIZES | {"model_type": "qwen2", "tie_word_embeddings": True, "rope_theta": 1e6},
    "qwen3": SIZES | {"model_type": "qwen3", "head_dim": 32, "tie_word_embeddings": True},
}
TOKENS = np.random.default_rng(0).integers(3, 290, (2, 24)).tolist()
TEXTS = ["numpy", "import the array", "def f(x):"]
GENERATED = 20


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, corpora: Path) -> Path:
    """Folders of all models, and transformers' logits of them."""
    folder = tmp_path_factory.mktemp("made")
    logits = read_with("make_models", folder, MODELS, TOKENS)
    np.savez(folder / "logits.npz", **logits)
    for name in MODELS:
        shutil.copy(corpora / "tokenizer.model", folder / name)
    return folder


@pytest.fixture(scope="module")
def trained(made: Path, corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Import -> search -> train -> export, by the command; the folder of all of these."""
    folder = tmp_path_factory.mktemp("trained")
    keys = folder / "keys.yaml"
    assert cli.main(["import", str(made / "qwen3"), "--from", "huggingface", "-o", str(keys)]) == 0
    settings = tiny_settings(corpora, folder) | yaml.safe_load(keys.read_text())
    settings["parallel"] = {"tensor": 2}
    searched = run_config("search", settings, folder / "search", 2)
    settings |= {"mixture": str(searched / "mixture.json"), "parallel": {"pipeline": 2}}
    settings["init_from"] = str(searched)
    run_dir = run_config("train", settings, folder / "train", 2)
    words = ["export", str(run_dir), "--to", "huggingface", "-o", str(folder / "model")]
    assert cli.main(words) == 0
    return folder


@pytest.fixture(scope="module")
def exported(
    made: Path, trained: Path, corpora: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """Every model through a run that changes nothing, exported; and what transformers finds."""
    folder = tmp_path_factory.mktemp("exported")
    for name in MODELS:
        settings = tiny_settings(corpora, folder / f"run-{name}")
        start = open_start(made / name)
        settings |= {"init_from": str(made / name), "train": settings["train"] | STILL}
        settings["model"] = start.model.model_dump()
        settings["precision"] = "bf16" if name == "mistral" else "fp32"
        loop.run(method_of(parse_config(settings), "train"))
        shard_bytes = 200_000 if name == "llama3" else 10**9
        export_huggingface(settings["run_dir"], folder / name, shard_bytes)
    arguments = (list(MODELS), TOKENS, str(trained / "model"), TEXTS, GENERATED)
    return folder, read_with("exported", folder, *arguments)


def require_close(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.shape == wanted.shape
    assert np.abs(wanted).max() > 1, "logits too small to tell models apart"
    assert np.abs(found - wanted).max() < 1e-5 * max(1.0, np.abs(wanted).max())


def test_logits_are_those_of_transformers(made: Path, settings: dict[str, Any]) -> None:
    folders = [str(made / name) for name in MODELS]
    _, found = answers(parse_config(settings), folders, TOKENS)
    wanted = np.load(made / "logits.npz")
    for folder in folders:
        require_close(found[folder], wanted[Path(folder).name])


@pytest.mark.distributed
@pytest.mark.parametrize("layout", ["tensor", "pipeline"])
def test_logits_under_tensor_and_pipeline_parallelism(
    made: Path, settings: dict[str, Any], tmp_path: Path, layout: str
) -> None:
    path, output = tmp_path / "config.yaml", str(tmp_path / "logits.npz")
    path.write_text(yaml.safe_dump(settings | {"parallel": {layout: 2}}))
    folders = [str(made / name) for name in MODELS]
    module = "tests.fastmix_mega.weights.answers"
    forked("python", module, str(path), json.dumps(TOKENS), output, *folders, processes=2)
    found, wanted = np.load(output), np.load(made / "logits.npz")
    for name in MODELS:
        require_close(found[name], wanted[name])


@pytest.mark.parametrize("name", MODELS)
def test_an_export_gives_the_tensors_back(
    made: Path, exported: tuple[Path, dict[str, Any]], name: str
) -> None:
    """Bit for bit, and transformers computes the same with them."""
    folder, found = exported
    before = merged(made / name)
    before.pop("lm_head.weight", None) if "tie_word_embeddings" in MODELS[name] else None
    after = merged(folder / name)
    assert before.keys() == after.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    if name == "llama3":
        assert len(list((folder / name).glob("model-*.safetensors"))) > 1
    wanted = np.load(made / "logits.npz")[name]
    assert np.array_equal(np.array(found["logits"][name], np.float32), wanted.astype(np.float32))


def merged(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        tensors |= load_file(file)
    return tensors


def test_transformers_generates_what_our_trained_model_does(
    trained: Path, exported: tuple[Path, dict[str, Any]], settings: dict[str, Any]
) -> None:
    """Hugging Face -> search -> train -> Hugging Face: the same greedy tokens, by its tokenizer."""
    _, found = exported
    tokenizer = Tokenizer(settings["tokenizer"])
    start = open_start(trained / "train" / "run")
    config = parse_config(settings | {"model": start.model.model_dump()})
    with parallel_layout.start(config.parallel) as layout:
        model = AnsweringModel(config, resolve_shape(start.model, 1), layout, start)
        for text, theirs in zip(TEXTS, found["generated"], strict=True):
            (prompt,) = tokenizer.encode([text])
            assert prompt.tolist() == theirs["prompt"]
            mine = greedy(model, [prompt.tolist()], GENERATED, {tokenizer.eod})[0]
            assert mine == theirs["new"]
            assert len(set(mine)) > 1
            # Prompts differ in length, so that all but one are padded.
            assert theirs["padded"] == theirs["new"]
            assert theirs["piped"] == theirs["text"]


def test_an_export_is_for_the_team_and_goes_back_in(trained: Path, tmp_path: Path) -> None:
    """Whoever may read the folder may read all of it; imported again it names the tokenizer that
    the data was made with."""
    model = trained / "model"
    assert {path.stat().st_mode & 0o777 for path in model.iterdir()} == {0o644}
    told = json.loads((model / "generation_config.json").read_text())
    assert told == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    assert "pad_token_id" not in json.loads((model / "config.json").read_text())
    keys = tmp_path / "keys.yaml"
    assert cli.main(["import", str(model), "--from", "huggingface", "-o", str(keys)]) == 0
    assert yaml.safe_load(keys.read_text())["tokenizer"] == str(model / "tokenizer.model")


Spoil = Callable[[Path], Any]


def edit(**changes: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


def as_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def change_tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Spoil:
    def spoil(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (edit(model_type="mixtral"), "model_type 'mixtral' is not supported; those that are"),
        (edit(attention_bias=True), "attention_bias: biases in llama's attention reach its output"),
        (edit(mlp_bias=True), "mlp_bias"),
        (edit(quantization_config={"bits": 4}), "its weights are quantised"),
        (edit(hidden_act="gelu"), "hidden_act 'gelu' is not supported"),
        (edit(hidden_act=9999 * "x"), r"hidden_act 'x{196}\.\.\. is not supported"),
        (edit(partial_rotary_factor=0.5), "partial_rotary_factor"),
        (edit(rope_scaling={"type": "yarn", "factor": 4}), "scaling of type 'yarn'"),
        (edit(rope_scaling={"rope_type": "llama3"}), "rotary_scaling.factor"),
        (edit(hidden_size="64"), "hidden_size must be whole numbers"),
        (edit(vocab_size=None), "vocab_size missing"),
        (edit(intermediate_size=128), r"gate_proj.weight has the shape \[96, 64\], but"),
        (edit(num_hidden_layers=3), "has the tensor model.layers.3"),
        (edit(num_hidden_layers=5), r"has no tensor model.layers.4.*and 8 more"),
        (as_pickle, "as pickles, which can run programs"),
        (cut_short, "is damaged"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not valid JSON"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors"),
        (
            change_tensors(lambda tensors: tensors.update(spare=torch.zeros(2))),
            "has the tensor spare, for which a llama model of this config.json has no place",
        ),
        (
            change_tensors(
                lambda t: t.update({"lm_head.weight": t["lm_head.weight"].to(torch.int8)})
            ),
            "lm_head.weight is I8; supported are F32, BF16, F16",
        ),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text(
                '{"weight_map": {"lm_head.weight": "../x.safetensors"}}'
            ),
            "names '../x.safetensors', which is no file of the folder",
        ),
    ],
)
def test_what_is_not_supported_is_refused(
    made: Path, tmp_path: Path, spoil: Spoil, message: str
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(made / "llama", folder)
    spoil(folder)
    with pytest.raises(UserError, match=message):
        HuggingFaceWeights(folder)
    assert (
        cli.main(["import", str(folder), "--from", "huggingface", "-o", str(tmp_path / "x")]) == 2
    )


JUNK = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just([]) | st.just({})
)


@settings_of_hypothesis(max_examples=150, deadline=None)
@given(data=st.data())
def test_broken_folders_end_in_a_message(
    made: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A config.json with one value spoiled, or safetensors with one byte of the header spoiled."""
    folder = tmp_path_factory.mktemp("broken")
    model = made / data.draw(st.sampled_from(["llama", "llama3", "qwen2", "qwen3"]))
    for path in model.iterdir():
        (folder / path.name).symlink_to(path)
    if data.draw(st.booleans()):
        content = json.loads((model / "config.json").read_text())
        key = data.draw(st.sampled_from([*content, "rope_parameters", "sliding_window"]))
        (folder / "config.json").unlink()
        (folder / "config.json").write_text(json.dumps(content | {key: data.draw(JUNK)}))
    else:
        file = sorted(folder.glob("*.safetensors"))[0]
        bytes_ = bytearray(file.read_bytes())
        bytes_[data.draw(st.integers(0, 3000))] = data.draw(st.integers(0, 255))
        file.unlink()
        file.write_bytes(bytes_)
    with contextlib.suppress(UserError):
        HuggingFaceWeights(folder)


def test_check_names_both_sides(made: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    def mistakes(**changes: Any) -> str:
        return "\n".join(check(parse_config(settings | changes), 1).mistakes)

    folder = made / "qwen3"
    model = open_start(folder).model.model_dump()
    assert mistakes(init_from=str(folder), model=model) == ""
    found = mistakes(init_from=str(folder))
    for key, there, here in (("qk_norm", True, False), ("head_size", 32, 16), ("layers", 4, 2)):
        assert f"model.{key} is {there} in {folder}, but {here} here; set model.{key} to" in found
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    (other / "tokenizer.model").write_bytes(b"another")
    assert "was trained with another tokenizer" in mistakes(init_from=str(other), model=model)
    windowed = tmp_path / "windowed"
    shutil.copytree(made / "mistral", windowed)
    edit(sliding_window=8)(windowed)
    model = open_start(windowed).model.model_dump()
    assert "looks back 8 tokens only" in mistakes(init_from=str(windowed), model=model)


def test_the_record_knows_changed_weights(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(made / "llama", folder)
    before = HuggingFaceWeights(folder).identity()
    change_tensors(lambda tensors: tensors["model.norm.weight"].add_(1))(folder)
    assert HuggingFaceWeights(folder).identity()["sha256"] != before["sha256"]


def test_exports_are_refused_for_what_they_cannot_hold(
    exported: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = exported
    words = ["export", str(folder / "run-llama"), "--to", "huggingface", "-o"]
    assert cli.main([*words, str(folder / "llama")]) == 2
    assert "exists; name a new folder" in capsys.readouterr().err
    assert cli.main([*words, str(tmp_path / "x"), "--budget-tokens", "1B"]) == 2
    assert "are about mixtures" in capsys.readouterr().err
