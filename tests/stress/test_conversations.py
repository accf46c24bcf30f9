"""The short form of `tests.stress.conversations`: one conversation of every combination."""

from __future__ import annotations

from pathlib import Path

from tests.stress.conversations import RECORDS, TEMPLATES, Campaign, Part, expected_mask
from tests.stress.tokenizer_kinds import KINDS


def test_no_answer_token_is_lost_and_no_prompt_token_counts(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, seed=7)
    campaign.run(300)
    assert not campaign.failures, campaign.failures[:3]
    assert campaign.counts["conversations"] >= 2 * len(KINDS) * len(RECORDS) + len(TEMPLATES)
    assert campaign.counts["answer tokens"] > 3000


def test_the_reference_sees_lost_text_and_special_tokens() -> None:
    kind = KINDS["Llama 2"]
    parts = [Part("a b", False), Part("c", True), Part("</s>", True, True)]
    assert expected_mask(["▁a", "▁b", "c", "</s>"], {"</s>"}, parts, kind) == [0, 0, 1, 1]
    assert expected_mask(["▁a", "▁b", "</s>"], {"</s>"}, parts, kind) != [0, 0, 1]
    assert "special token" in str(
        expected_mask(["▁a", "▁b", "c", "</s>", "</s>"], {"</s>"}, parts, kind)
    )
