from __future__ import annotations

import math
import time

import torch

from fastmix_mega.training.clock import StepClock


class Slow(torch.nn.Module):
    def forward(self, seconds: float) -> None:
        """Compute for so long."""
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass


def test_reading_forward_and_waiting_are_told_apart() -> None:
    model = Slow()
    clock = StepClock(torch.device("cpu"), [model])
    model(0.05)  # Outside a step, as in an evaluation.
    for _ in range(2):
        with clock.step():
            with clock.data():
                time.sleep(0.03)
            model(0.02)
            model(0.02)
            time.sleep(0.1)
    found = clock.take()
    assert 0.03 <= found.data < found.step
    assert 0.04 <= found.forward < found.step
    assert found.step >= 0.17
    # The sleep of reading is no waiting for others, and neither is a core that is busy.
    assert math.isnan(found.wait) or 0.09 <= found.wait < 0.125
    again = clock.take()
    assert (again.step, again.forward) == (0.0, 0.0)
