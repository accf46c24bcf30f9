"""The authors' recipe against torch's Adam, and what it fixes in the configuration."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fastmix_mega.configuration import parse_config
from fastmix_mega.methods.reference import Reference, ReferenceController
from tests.fastmix_mega.methods.resumed import require_same_after_resuming


def test_reference_recipe_is_adam_on_the_logits() -> None:
    """Against torch's Adam with the gradient -lambda (s - lambda . s); absent sources score 0."""
    controller = ReferenceController(np.full(3, 1 / 3), rate=0.1)
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.1, betas=(0.9, 0.95))
    random = np.random.default_rng(4)
    for _ in range(5):
        count = np.array([2.0, 0.0, 1.0])
        scores = np.where(count > 0, random.standard_normal(3), 0)
        controller.update(np.stack((scores * count, scores**2 * count, count, count)))
        mixture = logits.detach().softmax(0).numpy()
        logits.grad = torch.from_numpy(-mixture * (scores - mixture @ scores))
        adam.step()
        np.testing.assert_allclose(controller.mixture, logits.detach().softmax(0), rtol=1e-9)


def test_a_restored_controller_goes_on_bit_for_bit() -> None:
    require_same_after_resuming(lambda: ReferenceController(np.full(3, 1 / 3), rate=0.1))


def test_all_tokens_are_scored_unless_told_otherwise(settings: dict[str, Any]) -> None:
    settings["search"]["score_tokens"] = None
    given = parse_config(settings | {"method": "reference"})
    assert given.search.scored_share(conversations=False) == 0.125
    assert Reference.fix(given).search.scored_share(conversations=False) == 1
    settings["search"]["score_tokens"] = 0.5
    given = parse_config(settings | {"method": "reference"})
    assert Reference.fix(given).search.scored_share(conversations=False) == 0.5


def test_one_micro_batch_is_scored_in_every_window(settings: dict[str, Any]) -> None:
    settings["search"] |= {"every": 4, "warmup": 6}
    settings["train"]["steps"] = 20
    method = Reference(parse_config(settings | {"method": "reference"}))
    schedule = method.schedule(6)
    assert [step for step in range(20) if schedule.starts_window(step)] == [6, 10, 14, 18]
    assert [step for step in range(20) if schedule.ends_window(step)] == [6, 10, 14, 18]
    assert method.scored_sequences(5) == 5 * settings["train"]["micro_batch"]
