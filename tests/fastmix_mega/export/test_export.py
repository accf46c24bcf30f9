"""Every export is read back by its consumer, where it installs, and by our importer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fastmix_mega.cli import main as cli
from fastmix_mega.config.constraints import Constraints
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.errors import UserError
from fastmix_mega.export.export import export_mixture
from fastmix_mega.export.formats import FORMATS
from fastmix_mega.export.take import import_mixture
from fastmix_mega.export.units import Size
from fastmix_mega.mixture.file import MixtureFile, MixtureSource, read_mixture
from tests.fastmix_mega.export.consumers import read_with
from tests.tiny import SOURCES

WEIGHTS = (0.5, 0.1 + 0.2, 0.0, 0.2)
"""0.30000000000000004 must come back as it is; 0 must be left out."""
KEPT = {name: weight for name, weight in zip(SOURCES, WEIGHTS, strict=True) if weight}
OURS = ("fastmix", "megatron", "megatron-split-json", "megatron-bridge", "automodel", "gpt-neox")
OURS += ("olmo-core", "olmo-core-composable", "csv")
"""Formats that lead to our own token files; all others read other files."""


@pytest.fixture
def mixture(corpora: Path, tmp_path: Path) -> Path:
    MixtureFile(
        sources=[
            MixtureSource(
                name=name,
                weight=weight,
                prefix=str(corpora / name),
                tokens=IndexedTokens(corpora / name).num_tokens,
                gain=gain,
            )
            for name, weight, gain in zip(SOURCES, WEIGHTS, (0.4, 0.3, 0.1, 0.2), strict=True)
        ],
        search={"train_tokens": 3072, "config_sha256": "ab" * 32},
    ).write(tmp_path / "mixture.json")
    return tmp_path / "mixture.json"


def export(mixture: Path, to: str, **options: Any) -> Path:
    if to not in OURS:
        options.setdefault("paths", "data/{name}")
    output = mixture.parent / "exported"
    return export_mixture(mixture, to, output, budget_tokens=20_000, **options).path


def test_megatron_arguments(mixture: Path, corpora: Path) -> None:
    from megatron.core.datasets.utils import get_blend_from_list

    paths, weights = get_blend_from_list(export(mixture, "megatron").read_text().split())
    assert dict(zip(paths, weights, strict=True)) == {
        str(corpora / name): weight for name, weight in KEPT.items()
    }
    notes = mixture.with_name("exported.notes.txt").read_text()
    assert "shares of samples of the sequence's length, so of tokens" in notes


def test_megatron_splits_and_bridge(mixture: Path, corpora: Path) -> None:
    """Both make the config that Megatron's builder takes; Bridge's derives from the same class."""
    from megatron.core.datasets.blended_megatron_dataset_config import BlendedMegatronDatasetConfig
    from megatron.core.datasets.utils import get_blend_from_list

    splits = json.loads(
        export(mixture, "megatron-split-json", valid=[str(corpora / "target")]).read_text()
    )
    config = BlendedMegatronDatasetConfig(
        1, 16, blend_per_split=[get_blend_from_list(splits[s]) for s in ("train", "valid", "test")]
    )
    train, valid, test = config.blend_per_split
    assert train[1] == list(KEPT.values())
    assert valid == ([str(corpora / "target")], [1.0])
    assert test is None
    blend = json.loads(export(mixture, "megatron-bridge").read_text())["blend"]
    config = BlendedMegatronDatasetConfig(1, 16, blend=tuple(blend), split="1,0,0")
    assert tuple(config.blend) == train


def test_hf_datasets(mixture: Path) -> None:
    import datasets

    arguments = json.loads(export(mixture, "hf-datasets").read_text())
    rows = [
        datasets.Dataset.from_dict({"source": [Path(path).name] * 5000})
        for path in arguments["datasets"]
    ]
    keys = ("probabilities", "seed", "stopping_strategy")
    mixed = datasets.interleave_datasets(rows, **{key: arguments[key] for key in keys})
    drawn = mixed["source"][:8000]
    for name, weight in KEPT.items():
        error = np.sqrt(weight * (1 - weight) / len(drawn))
        assert drawn.count(name) / len(drawn) == pytest.approx(weight, abs=5 * error)
    # All documents here have 51 tokens, so that rows are tokens.
    assert arguments["document_probabilities"] == pytest.approx(arguments["probabilities"])


def test_mosaicml_streaming(mixture: Path) -> None:
    chosen = read_with("streaming", export(mixture, "mosaicml-streaming"), [300, 900, 50], 10_000)
    assert chosen == {name: round(10_000 * weight) for name, weight in KEPT.items()}


def test_olmo_core(mixture: Path) -> None:
    """It refuses a source that would have to be read more often than it is told."""
    taken = read_with("olmo_core", export(mixture, "olmo-core"), 20_000, 16)
    assert taken == {
        name: pytest.approx(20_000 * weight, abs=16 * 8) for name, weight in KEPT.items()
    }
    content = yaml.safe_load((mixture.parent / "exported").read_text())
    # 10,000 tokens of alpha's 5,100.
    assert content["sources"][0]["max_repetition_ratio"] == pytest.approx(1.963, abs=2e-3)


def test_torchtitan(mixture: Path) -> None:
    drawn = read_with("torchtitan", export(mixture, "torchtitan"), 20_000)
    for count, weight in zip(drawn, KEPT.values(), strict=True):
        assert count / 20_000 == pytest.approx(weight, abs=5 * np.sqrt(weight / 20_000))


def test_gpt_neox_and_nanotron(mixture: Path, corpora: Path) -> None:
    """Neither's parser installs without a GPU: the keys are those of their documentation."""
    neox = yaml.safe_load(export(mixture, "gpt-neox", valid=["held-out"]).read_text())
    assert neox["train_data_paths"] == [str(corpora / name) for name in KEPT]
    assert neox["train_data_weights"] == list(KEPT.values())
    assert neox["weight_by_num_documents"] is False
    assert neox["valid_data_weights"] == neox["test_data_weights"] == [1.0]
    text = export(mixture, "nanotron").read_text()
    assert text.startswith("# Data mixture by fastmix-mega")
    assert yaml.safe_load(text) == {
        "dataset_folder": [f"data/{name}" for name in KEPT],
        "dataset_weights": list(KEPT.values()),
    }


@pytest.mark.parametrize("name", [n for n, each in FORMATS.items() if each.read and each.write])
def test_import_gives_the_exported_weights(mixture: Path, name: str) -> None:
    back = mixture.parent / "back.json"
    sizes = {source: Size(5100, 100) for source in SOURCES}
    lines = import_mixture(export(mixture, name), name, back, sizes=sizes)
    assert not any("normalised" in line for line in lines)
    found = {source.name: source.weight for source in read_mixture(back).sources if source.weight}
    # Every source has 5,100 tokens in 100 rows, so that epochs and rows are shares of tokens; a
    # slice of rows is a whole number of them.
    assert found == (KEPT if name in OURS else pytest.approx(KEPT, rel=1e-11))


@pytest.mark.parametrize("name", ["megatron", "megatron-split-json", "megatron-bridge", "gpt-neox"])
def test_spaces_are_refused(mixture: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"splits at spaces.*'my data/alpha'"):
        export(mixture, name, paths="my data/{name}")


def test_a_source_of_several_files_shares_its_weight_by_tokens(
    mixture: Path, corpora: Path
) -> None:
    content = json.loads(mixture.read_text())
    content["sources"][0]["prefix"] = [str(corpora / "alpha"), str(corpora / "target")]
    mixture.write_text(json.dumps(content))
    words = export(mixture, "megatron").read_text().split()
    assert [float(words[0]), float(words[2])] == pytest.approx([0.5 * 100 / 130, 0.5 * 30 / 130])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "megatrn"}, "choose fastmix, megatron, "),
        ({"to": "nanotron", "paths": None}, "reads other files than ours"),
        ({"to": "megatron", "constraints": {"sources": {"x": {"max": 0.1}}}}, "x is no source"),
    ],
)
def test_mistakes(mixture: Path, options: dict[str, Any], message: str) -> None:
    if "constraints" in options:
        options = options | {"constraints": Constraints.model_validate(options["constraints"])}
    with pytest.raises(UserError, match=message):
        export_mixture(mixture, output=mixture.parent / "out", **options)


def test_constraints_epochs_and_cost_are_shown(
    mixture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = tmp_path / "limits.yaml"
    limits.write_text("max_epochs: 4\nsources: {delta: {fixed: 0.3}}")
    words = ["export", str(mixture), "--to", "fastmix", "--output", str(tmp_path / "new.json")]
    assert cli.main([*words, "--constraints", str(limits), "--budget-tokens", "40k"]) == 0
    shown = capsys.readouterr().out
    assert "epochs are at 40,000 tokens" in shown
    assert "limit reached: delta fixed at 0.3" in shown
    # By hand: alpha and beta share 0.7 as 5 : 3, so that 0.0625 and 0.0375 went to delta.
    cost = 0.0625 * 0.4 + 0.0375 * 0.3 - 0.1 * 0.2
    assert f"predicted cost: {cost:+.4f}" in shown
    weights = [source.weight for source in read_mixture(tmp_path / "new.json").sources]
    assert weights == pytest.approx([0.4375, 0.2625, 0, 0.3])
    assert cli.main([*words, "--budget-tokens", "60k"]) == 0
    assert "warning: read more than 4 times: alpha (5.88 times)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "text", "weights"),
    [
        ("weights", "train:\n  pile_a: 3\n  pile_b: 1\n", {"pile_a": 0.75, "pile_b": 0.25}),
        ("weights", '{"a": 0.5, "b": 0.5}', {"a": 0.5, "b": 0.5}),
        ("megatron", "30 x/a_text 70 y/a_text", {"x_a_text": 0.3, "y_a_text": 0.7}),
        ("gpt-neox", '{"train-data-paths": [a, b], "train-data-weights": [1, 1]}', None),
        ("csv", "source,token_share\na,2\nb,2\n", None),
    ],
)
def test_published_mixtures_are_normalised(
    tmp_path: Path, name: str, text: str, weights: dict[str, float] | None
) -> None:
    (tmp_path / "given").write_text(text)
    lines = import_mixture(tmp_path / "given", name, tmp_path / "mixture.json")
    assert any("normalised" in line for line in lines) == ("0.5" not in text)
    found = {each.name: each.weight for each in read_mixture(tmp_path / "mixture.json").sources}
    assert found == (weights or {"a": 0.5, "b": 0.5})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("megatron", "0.5 a 0.5", "no pairs of weight and prefix"),
        ("megatron", "a b", "stands where the weight"),
        ("megatron-split-json", "{}", "list `train`"),
        ("megatron-split-json", "{", "is no megatron-split-json file"),
        ("megatron-bridge", '{"blend": [["a"], [1, 2]]}', "must be"),
        ("gpt-neox", "train_data_paths: [a]", "lists of the same length"),
        ("olmo-core", "sources: [{source_name: a}]", "lacks a key"),
        ("nanotron", "[", "not valid YAML"),
        ("mosaicml-streaming", "streams: {a: {remote: b}}", "needs a proportion"),
        ("hf-datasets", "{}", "lists of one length"),
        ("torchtitan", "{}", "must be objects"),
        ("csv", "a,b\n1,2\n", "needs the columns"),
        ("weights", "a: -1\nb: 2", "not negative"),
        ("weights", "a: 0", "all weights are 0"),
        ("fastmix", "{}", "choose megatron"),
    ],
)
def test_broken_imports(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / "given").write_text(text)
    with pytest.raises(UserError, match=message):
        import_mixture(tmp_path / "given", name, tmp_path / "mixture.json")


def test_warnings_reach_the_output_and_the_notes(
    mixture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "The mixture was updated only 1 times."
    content = json.loads(mixture.read_text())
    content["search"]["warnings"] = [text]
    mixture.write_text(json.dumps(content))
    assert cli.main(["export", str(mixture), "--to", "megatron", "-o", str(tmp_path / "b")]) == 0
    assert f"warning: {text}" in capsys.readouterr().out.splitlines()
    assert f"Warning: {text}" in (tmp_path / "b.notes.txt").read_text().splitlines()
    # Where comments can stand inside the file, the notes stand there.
    assert f"Warning: {text}" in export(mixture, "nanotron").read_text()


def test_an_exported_mixture_has_the_epochs_of_its_budget_and_weights(mixture: Path) -> None:
    limits = Constraints.model_validate({"sources": {"delta": {"fixed": 0.3}}})
    found = read_mixture(export(mixture, "fastmix", constraints=limits))
    for source in found.sources:
        assert source.tokens is not None
        assert source.epochs_at_budget == pytest.approx(source.weight * 20_000 / source.tokens)
    assert found.search["budget_tokens"] == 20_000
    # Without a budget of its own, the search's holds.
    unchanged = mixture.parent / "unchanged.json"
    export_mixture(mixture, "fastmix", unchanged)
    first = read_mixture(unchanged).sources[0]
    assert first.tokens is not None
    assert first.epochs_at_budget == pytest.approx(0.5 * 3072 / first.tokens)


@pytest.mark.parametrize("output", ["", "file/below"])
def test_an_output_that_cannot_be_written(
    mixture: Path, tmp_path: Path, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    where = str(tmp_path / output)
    assert cli.main(["export", str(mixture), "--to", "megatron", "-o", where]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert cli.main(["export", str(mixture), "--to", "fastmix", "-o", str(mixture)]) == 2
    assert "would be overwritten" in capsys.readouterr().err


def test_only_our_own_exports_are_replaced(
    mixture: Path, row_mixture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name, form in FORMATS.items() if form.write is not None]:
        whose = mixture if FORMATS[name].notes is None and name != "energon" else row_mixture
        output = mixture.with_name(f"{name}.out")
        words = ["export", str(whose), "--to", name, "-o", str(output), "--budget-tokens", "20k"]
        words += [] if name in OURS else ["--paths", "data/{name}"]
        for _ in range(2):
            assert cli.main(words) == 0, name
        capsys.readouterr()
        output.write_text("another one's work\n")
        output.with_name(f"{output.name}.notes.txt").unlink(missing_ok=True)
        assert cli.main(words) == 2
        assert "is there already, and is no earlier result" in capsys.readouterr().err
        assert output.read_text() == "another one's work\n"
        assert cli.main([*words, "--overwrite"]) == 0
