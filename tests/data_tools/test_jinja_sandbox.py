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
        ("{{ (messages|length) ** 99999 }}", "more than 10,000 bits"),
        ("{% set n = namespace(x=9) %}" + "{% set n.x = n.x * n.x %}" * 60, "10,000 bits"),
        ("{{ 1|round(10 ** 9, 'ceil') }}", "leaves the text"),
        ("{{ messages[0].content * 1000000 }}", "characters for"),
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


@pytest.mark.parametrize(
    "text", ["{{ 'a' * 10000000000 }}", "{{ 9 ** 9 ** 9 }}", "{{ 'a\n'|indent(9999999999) }}"]
)
def test_constants_are_computed_within_the_limits(
    text: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Jinja computes what it can when it compiles."""
    (tmp_path / "t.jinja").write_text(text)
    try:
        found = load_template(str(tmp_path / "t.jinja"), tokenizer).render(TURNS)
    except UserError:
        return
    assert isinstance(found, Problem)


def test_a_template_that_is_too_deep_is_an_error(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}")
    with pytest.raises(UserError, match="--template"):
        load_template(str(tmp_path / "t.jinja"), tokenizer)


def test_a_template_that_is_slow_twice_ends_the_run(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_tools.hf_template.limits", lambda: jinja_sandbox.limits(0.1))
    (tmp_path / "t.jinja").write_text(LOOP)
    template = load_template(str(tmp_path / "t.jinja"), tokenizer)
    assert isinstance(template.render(TURNS), Problem)
    with pytest.raises(UserError, match="a second conversation"):
        template.render(TURNS)


def test_the_limits_are_lifted_afterwards() -> None:
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(ZeroDivisionError), jinja_sandbox.limits():
        _ = 1 / 0
    after = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGVTALRM)
    assert after == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
