"""Bytes on the links, against counts made by hand."""

import pytest

from fastmix_mega.config.schema import Config
from fastmix_mega.config.sections import ParallelSection
from fastmix_mega.configuration import load_config
from fastmix_mega.methods.registry import method_of
from fastmix_mega.model.presets import resolve_shape
from fastmix_mega.planning.traffic import outer_traffic, step_traffic


def config(*changes: str) -> Config:
    """As a search fixes it."""
    given = load_config("configs/large_7b.yaml", ["search.target_batch=64", *changes])
    return method_of(given).config


CONFIG = config("search.scores=head")
SHAPE = resolve_shape(CONFIG.model, 128256)


def test_one_process_sends_nothing() -> None:
    assert step_traffic(CONFIG, SHAPE, ParallelSection(), 1).total == 0
    assert outer_traffic(CONFIG, SHAPE, ParallelSection(), 1).total == 0


def test_data_parallel_gradients_and_parameters() -> None:
    traffic = step_traffic(CONFIG, SHAPE, ParallelSection(), 4)
    # fp32 gradients all-reduced in a ring (2 x 3/4), bf16 parameters gathered (3/4).
    assert traffic.data == pytest.approx(0.75 * SHAPE.parameters * (2 * 4 + 2))
    assert traffic.total == traffic.data
    outer = outer_traffic(CONFIG, SHAPE, ParallelSection(), 4)
    assert outer.total == pytest.approx(2 * 0.75 * 128256 * 4096 * 4)


def test_tensor_parallel_residuals() -> None:
    traffic = step_traffic(CONFIG, SHAPE, ParallelSection(tensor=2), 2)
    residual = 4096 * 4096 * 2  # tokens x hidden size x bf16
    micro_batches, passes, reductions = 1024, 2, 2 * 32 + 1
    assert traffic.tensor == pytest.approx(residual * reductions * passes * micro_batches)
    assert traffic.data == 0


def test_pipeline_sends_each_residual_forward_and_back() -> None:
    traffic = step_traffic(CONFIG, SHAPE, ParallelSection(pipeline=4), 4)
    assert traffic.pipeline == pytest.approx(1024 * 2 * 4096 * 4096 * 2)


def test_context_parallel_keys_and_values() -> None:
    traffic = step_traffic(CONFIG, SHAPE, ParallelSection(context=2), 2)
    keys_and_values = 2 * 2048 * 4096 * 2  # both x own tokens x width x bf16
    assert traffic.context == pytest.approx(1024 * 2 * 32 * keys_and_values)


def test_the_body_s_scores_need_a_backward_pass_over_the_targets() -> None:
    by_default, layout = config(), ParallelSection(tensor=2, sequence=True)
    assert by_default.search.scores == "body"
    outer = outer_traffic(by_default, SHAPE, layout, 8)
    # Matrices are shared by two tensor-parallel ranks, and the sum is over the other four.
    held = 32 * (SHAPE.split_layer_parameters / 2 + SHAPE.whole_layer_parameters)
    assert outer.data == pytest.approx(2 * 0.75 * held * 4)
    at_head = outer_traffic(CONFIG, SHAPE, layout, 8)
    assert outer.tensor == pytest.approx(2 * at_head.tensor)
    recomputed = config("train.recompute=full")
    assert outer_traffic(recomputed, SHAPE, layout, 8).tensor == pytest.approx(3 * at_head.tensor)

    pipeline = ParallelSection(pipeline=4)
    sent = [outer_traffic(each, SHAPE, pipeline, 8).pipeline for each in (CONFIG, by_default)]
    assert sent[1] == pytest.approx(2 * sent[0])
