"""The choice of kernels, on machines that are described and not there; and what is here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from megatron.core.extensions import transformer_engine
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from packaging.version import Version
from torch import nn

from fastmix_mega.config.sections import ParallelSection
from fastmix_mega.configuration import parse_config
from fastmix_mega.errors import UserError
from fastmix_mega.methods.registry import method_of
from fastmix_mega.model.gpt import build_model
from fastmix_mega.model.initialize import initialize_weights
from fastmix_mega.model.kernels import Capabilities, Kernels, choose, problems
from fastmix_mega.model.layers import CausalAttention, RMSNorm
from fastmix_mega.model.presets import resolve_shape
from fastmix_mega.parallel import layout as parallel_layout
from fastmix_mega.planning.check import check
from tests.launch import column, run_config

GPU = Capabilities(cuda=True, transformer_engine=Version("2.9.0"), compiler=True)
LAPTOP = Capabilities(cuda=False, transformer_engine=None, compiler=True)
PLAIN = Kernels(False, False, False)


def config(settings: dict[str, Any], **sections: Any) -> Any:
    """As the method fixes it, which says what its scores look at."""
    return method_of(parse_config(settings | sections)).config


def test_a_cpu_compiles_nothing_and_is_plain(settings: dict[str, Any]) -> None:
    assert choose(config(settings), "search", LAPTOP) == PLAIN
    assert problems(config(settings), "search", LAPTOP) == []
    on = config(settings, kernels={"compile": True})
    assert choose(on, "search", LAPTOP) == replace(PLAIN, compiled=True)


@pytest.mark.parametrize(
    ("machine", "sections", "mode", "layers", "attention"),
    [
        (GPU, {"precision": "bf16"}, "search", True, True),
        # A search at its defaults looks at the body's gradients.
        (GPU, {"search": {}, "precision": "bf16"}, "search", False, False),
        (GPU, {"precision": "fp32"}, "search", False, False),
        (replace(GPU, transformer_engine=None), {"precision": "bf16"}, "search", False, False),
        (replace(GPU, transformer_engine=Version("2.8")), {}, "search", False, False),
        (GPU, {"search": {"scores": "all"}}, "search", False, False),
        (GPU, {"search": {"scores": "all"}, "precision": "bf16"}, "train", True, True),
        (GPU, {"parallel": {"zero": 3}}, "train", False, False),
        (GPU, {"kernels": {"layers": "torch"}}, "train", False, False),
    ],
)
def test_auto_takes_what_a_gpu_can_use(
    settings: dict[str, Any],
    machine: Capabilities,
    sections: dict[str, Any],
    mode: str,
    layers: bool,
    attention: bool,
) -> None:
    found = choose(config(settings, **sections), mode, machine)
    chats = choose(config(settings, **sections), mode, machine, conversations=True)
    assert chats == replace(found, engine_attention=False)
    assert found == Kernels(layers, attention, compiled=True)
    assert problems(config(settings, **sections), mode, machine) == []


@pytest.mark.parametrize(
    ("machine", "sections", "reason"),
    [
        (LAPTOP, {}, "needs a CUDA device"),
        (replace(GPU, transformer_engine=None), {}, "is not installed (pip install"),
        (replace(GPU, transformer_engine=None, engine_error="No libcudnn"), {}, "No libcudnn"),
        (replace(GPU, transformer_engine=Version("1.13")), {}, "has version 1.13"),
        (GPU, {"search": {"scores": "all"}}, "cannot measure search.scores: all"),
        (GPU, {"parallel": {"zero": 3}}, "ZeRO stage 3"),
    ],
)
def test_what_cannot_be_had_is_refused(
    settings: dict[str, Any], machine: Capabilities, sections: dict[str, Any], reason: str
) -> None:
    asked = config(settings, kernels={"layers": "transformer_engine"}, **sections)
    assert any(reason in each for each in problems(asked, "search", machine))
    assert problems(config(settings, **sections), "search", machine) == []
    bare = replace(machine, compiler=False)
    (only,) = problems(config(settings, kernels={"compile": "on"}), "search", bare)
    assert only.startswith("kernels.compile: on needs")


def test_check_says_which_are_taken_here(settings: dict[str, Any]) -> None:
    (told,) = [fact for fact in check(config(settings), 1).facts if "kernels" in fact]
    assert str(choose(config(settings), "search")) in told
    if not torch.cuda.is_available():
        assert choose(config(settings), "search") == PLAIN
        asked = config(settings, kernels={"layers": "transformer_engine"})
        assert any("needs a CUDA device" in each for each in check(asked, 1).mistakes)


def test_switches_are_words_or_yaml_booleans(settings: dict[str, Any]) -> None:
    for given, meant in ((True, "on"), (False, "off"), ("auto", "auto")):
        asked = config(settings, kernels={"compile": given})
        assert asked.kernels.compile == meant
        assert "compile: " in asked.to_yaml()
    with pytest.raises(UserError, match=r"kernels\.compile"):
        config(settings, kernels={"compile": "sometimes"})


def test_layers_of_each_choice() -> None:
    """Norms and linear layers stay apart, so that parameters keep their names."""
    plain, fast = PLAIN.layer().submodules, Kernels(True, True, True).layer().submodules
    assert plain.input_layernorm is plain.pre_mlp_layernorm is PLAIN.norm() is RMSNorm
    assert plain.self_attention.submodules.core_attention is CausalAttention
    assert plain.mlp.submodules.linear_fc1 is ColumnParallelLinear
    assert plain.mlp.submodules.linear_fc2 is RowParallelLinear
    engine = transformer_engine
    assert fast.input_layernorm is fast.pre_mlp_layernorm is engine.TENorm
    attention, feed_forward = fast.self_attention.submodules, fast.mlp.submodules
    assert attention.core_attention is engine.TEDotProductAttention
    assert attention.linear_qkv is feed_forward.linear_fc1 is engine.TEColumnParallelLinear
    assert attention.linear_proj is feed_forward.linear_fc2 is engine.TERowParallelLinear
    without = Kernels(True, False, True).layer().submodules
    assert without.self_attention.submodules.core_attention is CausalAttention


class Stateful(nn.Module):
    """Keeps an extra state beside its parameters, as TransformerEngine's layers do."""

    loaded: Any = "never"

    def get_extra_state(self) -> Any:
        return torch.ones(3)

    def set_extra_state(self, state: Any) -> None:
        self.loaded = state


def test_extra_states_stay_out_of_checkpoints(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config(settings)
    shape = resolve_shape(asked.model, 300)

    class StatefulNorm(RMSNorm, Stateful):
        pass

    monkeypatch.setattr("fastmix_mega.model.layers.RMSNorm", StatefulNorm)
    with parallel_layout.start(ParallelSection()) as layout:
        model = build_model(asked, shape, layout, PLAIN)
        # TransformerEngine's parameters carry megatron-core's marks before they are drawn.
        initialize_weights(model, shape, 0.02, asked.seed, layout)
    state = model.state_dict()
    assert set(state) == {name for name, _ in model.named_parameters()}
    model.load_state_dict(state)
    norms = [module for module in model.modules() if isinstance(module, StatefulNorm)]
    assert len(norms) == 2 * shape.layers + 1
    assert all(module.loaded is None for module in norms)


@pytest.mark.distributed
def test_compiled_regions_give_the_same(settings: dict[str, Any], tmp_path: Path) -> None:
    """Compiled for real, on this machine's CPU."""
    settings["train"] |= {"steps": 6, "schedule": {"warmup": 2}}
    settings["checkpoint"] = {"final": False}
    plain, compiled = (
        run_config("train", settings | {"kernels": {"compile": word}}, tmp_path / word)
        for word in ("off", "on")
    )
    for key in ("loss", "grad_norm"):
        here, there = (column(each, "metrics.jsonl", key) for each in (compiled, plain))
        assert here == pytest.approx(there, rel=1e-5)
