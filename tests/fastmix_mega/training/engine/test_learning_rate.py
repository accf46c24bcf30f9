from __future__ import annotations

import pytest

from fastmix_mega.config.sections import ScheduleSection
from fastmix_mega.training.engine.learning_rate import learning_rate


@pytest.mark.parametrize("kind", ["cosine", "wsd", "constant"])
def test_warmup_peak_and_end(kind: str) -> None:
    schedule = ScheduleSection(kind=kind, peak=2.0, final=0.1, warmup=4, decay=0.25)
    rates = [learning_rate(schedule, step, 40) for step in range(40)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert max(rates) == 2.0
    assert rates[-1] == pytest.approx(2.0 if kind == "constant" else 0.2)
    assert rates[3:] == sorted(rates[3:], reverse=True)


def test_wsd_is_stable_until_its_decay() -> None:
    schedule = ScheduleSection(kind="wsd", peak=1.0, final=0.0, warmup=0, decay=0.2)
    rates = [learning_rate(schedule, step, 100) for step in range(100)]
    assert rates[:79] == [1.0] * 79
    assert rates[80] == pytest.approx(0.95)
    assert rates[99] == 0.0
