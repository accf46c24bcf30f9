from __future__ import annotations

import pytest

from fastmix_mega.config.sections import ModelSection, ParallelSection
from fastmix_mega.configuration import parse_config
from fastmix_mega.model.gpt import build_model
from fastmix_mega.model.kernels import choose
from fastmix_mega.model.presets import PRESETS, resolve_shape
from fastmix_mega.parallel import layout as parallel_layout


@pytest.mark.parametrize("name", [name for name in PRESETS if name[-1] in "MB"])
def test_a_preset_has_about_the_parameters_that_it_names(name: str) -> None:
    wanted = float(name[:-1]) * {"M": 1e6, "B": 1e9}[name[-1]]
    shape = resolve_shape(ModelSection(preset=name), 32000)
    assert 0.75 * wanted < shape.body_parameters < 1.25 * wanted


@pytest.mark.parametrize(
    "options",
    [{}, {"tie_embeddings": True}, {"qkv_bias": True, "qk_norm": True, "head_size": 32}],
    ids=["untied", "tied", "biases, norms of heads"],
)
def test_counted_parameters_are_the_models(settings: dict, options: dict) -> None:
    settings["model"] |= options
    config = parse_config(settings)
    shape = resolve_shape(config.model, 300)
    assert shape.vocab_size == 384
    with parallel_layout.start(ParallelSection()) as layout:
        model = build_model(config, shape, layout, choose(config, "train"))
    assert sum(p.numel() for p in model.parameters()) == shape.parameters
