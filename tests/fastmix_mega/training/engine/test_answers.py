"""Conversations through a real model in fp64: only answers count, and each as if it stood alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fastmix_mega.config.schema import Config
from fastmix_mega.config.sections import ParallelSection
from fastmix_mega.configuration import parse_config
from fastmix_mega.data.conversations import ConversationSource
from fastmix_mega.data.run_inputs import open_inputs
from fastmix_mega.data.sampler import Draw
from fastmix_mega.model.masks import conversation_bias
from fastmix_mega.parallel import layout as parallel_layout
from fastmix_mega.parallel.layout import Layout, Ranks
from fastmix_mega.training.engine.answers import weigh_sets, weigh_step
from fastmix_mega.training.engine.batches import MicroBatch, load_micro_batch
from fastmix_mega.training.engine.head_meter import HeadMeter
from fastmix_mega.training.engine.hook_meter import HookMeter
from tests.fastmix_mega.training.engine.test_head_scores import access_to, double_model

ONE = Ranks(0, 1, None)


@pytest.fixture(scope="module")
def layout() -> Iterator[Layout]:
    with parallel_layout.start(ParallelSection()) as started:
        yield started


def batches_of(config: Config, chosen: list[int], weights: list[float]) -> list[MicroBatch]:
    """Micro-batches of two sequences of the sources that are named, in order."""
    draw = Draw(np.array(chosen), np.arange(len(chosen)))
    sources, given = open_inputs(config).sources, np.array(weights)
    return [
        load_micro_batch(sources, draw, np.arange(start, start + 2), given, torch.device("cpu"))
        for start in range(0, len(chosen), 2)
    ]


def losses(model: Any, batch: MicroBatch) -> Tensor:
    """[b] mean loss of each sequence's answers, from the logits, in fp64."""
    assert batch.loss_mask is not None
    assert batch.documents is not None
    assert batch.answers is not None
    positions = torch.arange(batch.inputs.size(1))
    bias = conversation_bias(batch.documents, positions, torch.float64)
    logits = model(batch.inputs, positions.expand_as(batch.inputs), bias)
    per_token = functional.cross_entropy(
        logits.flatten(0, 1), batch.labels.flatten(), reduction="none"
    ).view_as(batch.labels)
    return (per_token * batch.loss_mask).sum(1) / batch.answers


def conversations(batch: MicroBatch, row: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Tokens and which labels count of each conversation of a row."""
    assert batch.documents is not None
    assert batch.loss_mask is not None
    for number in batch.documents[row].unique():
        inside = (batch.documents[row] == number).nonzero().squeeze(-1)
        counted = batch.loss_mask[row][inside]
        if counted.any():
            yield batch.tokens[row][inside[0] : inside[-1] + 2], counted


def alone(model: Any, batch: MicroBatch, row: int) -> Tensor:
    """Sum of the answers' losses of a row, each conversation by itself, without a mask."""
    total = torch.zeros((), dtype=torch.float64)
    for tokens, counted in conversations(batch, row):
        inputs = tokens[None, :-1]
        logits = model(inputs, torch.arange(inputs.size(1))[None], None)[0]
        per_token = functional.cross_entropy(logits, tokens[1:], reduction="none")
        total = total + per_token[counted].sum()
    return total


def test_packed_equals_each_conversation_alone(chats: dict[str, Any], layout: Layout) -> None:
    """Loss and all gradients; rotary angles are fp32 in an fp64 model too."""
    config, model = double_model(chats, layout, tied=False)
    (batch,) = batches_of(config, [1, 2], [1.0, 1.0])
    assert batch.answers is not None
    assert all(len(list(conversations(batch, row))) > 1 for row in (0, 1)), "nothing is packed"
    packed = (losses(model, batch) * batch.answers).sum()
    single = alone(model, batch, 0) + alone(model, batch, 1)
    assert packed.item() == pytest.approx(single.item(), rel=1e-7)
    parameters = list(model.parameters())
    for here, there in zip(
        torch.autograd.grad(packed, parameters),
        torch.autograd.grad(single, parameters),
        strict=True,
    ):
        assert (here - there).abs().max() < 1e-6 * there.abs().max()


def test_packed_and_unpacked_sources_have_one_loss(chats: dict[str, Any], layout: Layout) -> None:
    """The mean over all answers of an epoch, 1e-6, through the data path of each."""
    found = {}
    for packed in (True, False):
        chats["train"]["packing"] = packed
        config, model = double_model(chats, layout, tied=False)
        source = open_inputs(config).sources[0]
        assert isinstance(source, ConversationSource)
        assert source.fit.truncated == 0
        count = source.num_samples - source.num_samples % 2
        total = answers = 0.0
        rows = [*range(count), *([count] * 2 if source.num_samples % 2 else [])]
        for start in range(0, len(rows), 2):
            draw = Draw(np.zeros(2, np.int64), np.array(rows[start : start + 2]))
            twice = rows[start] == rows[start + 1]
            weights = np.array([1.0, 0.0 if twice else 1.0])
            batch = load_micro_batch([source], draw, np.arange(2), weights, torch.device("cpu"))
            assert batch.answers is not None
            with torch.no_grad():
                total += float((losses(model, batch) * batch.answers * batch.weights).sum())
            answers += float((batch.answers * batch.weights).sum())
        found[packed] = (total / answers, answers)
    assert found[True][1] == found[False][1]
    assert found[True][0] == pytest.approx(found[False][0], rel=1e-6)


def test_prompts_have_no_gradient(chats: dict[str, Any], layout: Layout) -> None:
    """Exactly zero at the logits of every token that does not count, and elsewhere not."""
    config, model = double_model(chats, layout, tied=False)
    (batch,) = batches_of(config, [0, 3], [1.0, 2.0])
    assert batch.loss_mask is not None
    gradients: list[Tensor] = []
    handle = model.output_layer.register_forward_hook(
        lambda _module, _inputs, output: output[0].register_hook(gradients.append) and None
    )
    (losses(model, batch) * batch.weights).sum().backward()
    handle.remove()
    at_logits = gradients[0].transpose(0, 1)  # [s, b, V] -> [b, s, V]
    assert (at_logits[~batch.loss_mask] == 0).all()
    assert (at_logits[batch.loss_mask].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("scores", ["head", "all"])
def test_scores_are_means_over_a_sources_answers(
    chats: dict[str, Any], layout: Layout, scores: str
) -> None:
    """<v, gradient of (sum over answers / number of answers)> by source, 1e-6, never a mean of
    means; with unequal weights and accumulation."""
    config, model = double_model(chats, layout, tied=False)
    meter: Any = (HeadMeter if scores == "head" else HookMeter)(
        access_to(model, config, layout), 4, *([] if scores == "head" else [scores])
    )
    chosen = [2, 2, 0, 0, 2, 2]
    batches = weigh_step(
        batches_of(config, chosen, [0.5 + 0.5 * (source == 2) for source in chosen]), 6, ONE
    )
    parameters = [model.output_layer.weight] if scores == "head" else list(model.parameters())
    generator = torch.Generator().manual_seed(3)
    directions = [
        torch.randn(p.shape, dtype=torch.float64, generator=generator) for p in parameters
    ]
    if scores == "head":
        meter._direction = directions[0]
    else:
        meter._directions = directions
    meter.begin_step(0, 3)
    for number, batch in enumerate(batches):
        meter.before_forward(number, batch)
        if scores == "head":
            positions = torch.arange(batch.inputs.size(1))
            assert batch.documents is not None
            bias = conversation_bias(batch.documents, positions, torch.float64)
            model(batch.inputs, positions.expand_as(batch.inputs), bias, labels=batch.labels)
        else:
            ((losses(model, batch) * batch.weights).sum() / 6).backward()
    meter.end_step(batches, 1 / 6)
    total, _, weight, squared = meter.sums.take(lambda sums: sums)
    for source, own in ((2, (batches[0], batches[2])), (0, (batches[1],))):
        answers = sum(float(batch.answers.sum()) for batch in own if batch.answers is not None)
        loss = sum(alone(model, batch, row) for batch in own for row in (0, 1)) / answers
        gradients = torch.autograd.grad(loss, parameters)
        wanted = sum(float((v * g).sum()) for v, g in zip(directions, gradients, strict=True))
        assert weight[source] == answers
        assert total[source] / weight[source] == pytest.approx(wanted, rel=1e-6)
        assert 0 < squared[source] <= answers**2
    assert weight[1] == weight[3] == 0


def test_a_steps_loss_counts_every_answer_alike(chats: dict[str, Any]) -> None:
    """sum w n l / sum w n, over two ranks as on one; each target's weights sum to 1."""
    config = parse_config(chats)
    batches = batches_of(config, [0, 1, 2, 3], [0.5, 1.0, 1.5, 2.0])
    weighed = weigh_step(batches, 4, ONE)
    answers = torch.cat([batch.answers for batch in batches if batch.answers is not None])
    given = torch.cat([batch.weights for batch in batches])
    wanted = 4 * given * answers / (given * answers).sum()
    torch.testing.assert_close(torch.cat([batch.weights for batch in weighed]), wanted)
    sets = weigh_sets(batches_of(config, [0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5]), 2, ONE)
    for number, batch in enumerate(sets):
        assert batch.answers is not None
        torch.testing.assert_close(batch.weights, batch.answers / batch.answers.sum())
        assert (batch.sources == number).all()


def test_text_among_conversations(chats: dict[str, Any], settings: dict[str, Any]) -> None:
    """A text source in the same run: every token counts, and nothing borders its attention."""
    chats["sources"][0]["prefix"] = settings["sources"][0]["prefix"]
    (batch,) = batches_of(parse_config(chats), [0, 1], [1.0, 1.0])
    assert batch.loss_mask is not None
    assert batch.documents is not None
    assert batch.loss_mask[0].all()
    assert (batch.documents[0] == 0).all()
    assert not batch.loss_mask[1].all()
