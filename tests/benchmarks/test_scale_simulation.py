"""The simulated scaling: what must hold of it whatever the machine is assumed to be."""

from __future__ import annotations

from benchmarks.scale_simulation import simulate


def test_rare_outer_steps_take_a_smaller_share() -> None:
    often, rare = (simulate("configs/large_1b.yaml", 8, 40e9, every) for every in (8, 32))
    assert often is not None
    assert rare is not None
    assert often.share > 3 * rare.share > 0
    # The body's gradient, by a forward and a backward pass of 128 sequences for a batch of 512.
    assert 0.2 < often.outer_ms / often.step_ms < 0.35
