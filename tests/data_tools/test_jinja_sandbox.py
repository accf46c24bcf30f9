"""Chat templates are somebody else's programs: they fail, loop and grow within limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_tools import jinja_sandbox
from data_tools.readers import Problem
from data_tools.templates import load_template
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError
from tests.data_tools.chats import byte_tokenizer

TURNS = [{"role": "user", "content": "a word"}, {"role": "assistant", "content": "it is"}]
LOOP = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"
DOUBLE = (
    "{% set n = namespace(x='aaaaaaaa') %}{% for a in range(40) %}{% set n.x = n.x ~ n.x %}"
    "{% endfor %}{{ n.x }}"
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(byte_tokenizer(tmp_path_factory.mktemp("sandbox")))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ messages[0]['content'] + 1 }}", "fails: TypeError"),
        ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "fails: RecursionError"),
        ("{{ 1 // 0 }}", "fails: ZeroDivisionError"),
        ("{{ messages[5].content }}", "refuses it"),
        ("{% include 'x' %}", "chat template"),
        ("{{ 'a' * 100000000000 }}", "more memory"),
        (DOUBLE, "than it may"),
        (LOOP, "longer than it may"),
    ],
)
def test_whatever_a_template_does_is_a_problem(
    text: str, reason: str, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_tools.hf_template.limits", lambda: jinja_sandbox.limits(0.2))
    (tmp_path / "t.jinja").write_text(text)
    found = load_template(str(tmp_path / "t.jinja"), tokenizer).render(TURNS)
    assert isinstance(found, Problem)
    assert reason in found.reason


def test_a_template_that_is_too_deep_is_an_error(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}")
    with pytest.raises(UserError, match="--template"):
        load_template(str(tmp_path / "t.jinja"), tokenizer)


def test_the_limits_are_lifted_afterwards() -> None:
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(ZeroDivisionError), jinja_sandbox.limits():
        _ = 1 / 0
    after = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGVTALRM)
    assert after == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
