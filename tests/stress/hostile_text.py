"""YAML, JSON and plain values that are made to break whoever reads them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from tests.stress.fuzz import ODD_VALUES, places, spoil, spoil_bytes

NUMBERS: tuple[Any, ...] = (
    *(0, -1, 1, 2, 3, 2**31 - 1, 2**31, 2**32, 2**53, 2**63, -(2**63), 10**18, 10**30, 10**400),
    *(-0.0, 1e308, -1e308, 1e-320, float("nan"), float("inf"), float("-inf"), True, None, "1e9"),
)
TEXTS = (
    *("", " ", "\0", "\ud800", "\u202e", "a" * 5000, "../" * 30 + "etc/passwd", "/etc/passwd"),
    *("/dev/zero", "/dev/full", "/proc/self/mem", "~root/x", "$HOME/x", "${HOME}", "%s%n{0}"),
    *("{name}{prefix}", "{{ 7 * 7 }}", "<script>alert(1)</script>", "=1+1", "'; DROP", "\n- a"),
    *("file:///etc/passwd", "http://127.0.0.1:1/x", "s3://bucket/key", "memory://nowhere/x"),
    *("reference://a::file:///etc/passwd", "zip://a::http://127.0.0.1:1/x", "simplecache::x"),
    *("git://x", "jupyter://x", "nosuch://x", "://", "data:,x", "dir://x", "CON", "a/../../b"),
)
DEPTHS = (50, 900, 3_000, 60_000)


def a_value(dice: random.Random) -> Any:
    """One odd value."""
    return dice.choice((dice.choice(NUMBERS), dice.choice(TEXTS), dice.choice(ODD_VALUES)))


def spoiled(content: Any, dice: random.Random) -> Any:
    """Plain data, changed in one to four places."""
    for _ in range(dice.choice((1, 1, 2, 4))):
        found = places(content)
        if found and dice.random() < 0.5:
            container, key = dice.choice(found)
            container[key] = a_value(dice)
        else:
            spoil(content, dice)
    return content


def to_json(content: Any) -> bytes:
    """As Python writes it, with NaN and halves of surrogate pairs."""
    return json.dumps(content).encode()


def _laughs(dice: random.Random) -> str:
    """Each anchor stands for many of the one before."""
    width, levels = dice.choice(((9, 9), (2, 40), (30, 6), (3, 5)))
    kind = dice.choice(("list", "list", "map", "merge"))
    lines = ["l0: &l0 {a: 1, b: lol}" if kind == "merge" else "l0: &l0 lol"]
    for level in range(1, levels):
        names = [f"*l{level - 1}"] * width
        if kind == "list":
            body = f"[{', '.join(names)}]"
        elif kind == "map":
            body = "{" + ", ".join(f"k{at}: {name}" for at, name in enumerate(names)) + "}"
        else:
            body = "{<<: [" + ", ".join(names) + f"], k{level}: 1}}"
        lines.append(f"l{level}: &l{level} {body}")
    return "\n".join(lines) + "\n"


def _deep(dice: random.Random) -> str:
    depth = dice.choice(DEPTHS)
    opening, closing = dice.choice(
        (("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", ""), ("&a [", "]"))
    )
    return "a: " * (opening == "[") + opening * depth + closing * dice.choice((0, depth))


def _odd_yaml(dice: random.Random) -> str:
    return dice.choice(
        (
            *("a: &a [*a]", "&a {*a : 1}", "&a [&b [*a, *b]]", "? [1]\n: 2", "a: *nowhere"),
            *('!!int ""', "!!int x", '!!float ""', "!!float .", "!!bool x", "!!timestamp x"),
            *("!!binary x", "!!set [a]", "!!omap {a: 1}", "!!pairs [a]", "!!null x", "!!map []"),
            *("!!python/object/apply:os.system [exit]", "!!python/name:os.system", "!x y"),
            *("%YAML 9.9\n---\na: 1", "---\na: 1\n---\nb: 2", "%TAG ! x\n---\n!a b", "\ufeffa: 1"),
            *("a: 2001-99-99", "a: 2001-01-01 99:99:99", "a: " + ":".join(["59"] * 40_000)),
            *("a: " + ":".join(["59"] * 400) + ".5", "a: " + "9" * 100_000, "a: 0x" + "f" * 9_000),
            *("a: 0b" + "1" * 90_000, "a: " + "9" * 4_000 + ".0", "a: 1e" + "9" * 500),
            *("a: " + "x" * 2_000_000, "a" * 3_000, "- a\n" * 150_000, "a: {" + "b, " * 50_000),
            "".join(f"k{at}: {at}\n" for at in range(60_000)),
            "a:\n" + "".join(f"  - {{name: n{at}, weight: 0.1}}\n" for at in range(20_000)),
            *("<<: [1]", "<<: x", "a: !!merge x", "=: 1", "a: |99\n b", "a: >\n" + " \n" * 9_000),
            *('"\\ud800": 1', 'a: "\\x00"', "a: '" + "''" * 9_000, "\t- a", "a: b: c", "[a, b}"),
        )
    )


def hostile_yaml(dice: random.Random, valid: str) -> bytes:
    """YAML that no honest tool writes, alone or beside a valid document's lines."""
    text = dice.choice((_laughs, _deep, _odd_yaml))(dice)
    place = dice.random()
    if place < 0.4:
        text = f"{valid}\n{text}"
    elif place < 0.6 and not text.startswith(("%", "---")):
        text = f"{text}\n{valid}"
    encoding = dice.choice(("utf-8", "utf-8", "utf-8", "utf-16", "utf-32", "latin-1"))
    return text.encode(encoding, "replace" if encoding != "utf-8" else "surrogatepass")


def hostile_json(dice: random.Random, valid: bytes) -> bytes:
    """JSON that no honest tool writes."""
    depth = dice.choice(DEPTHS)
    made: tuple[Callable[[], bytes], ...] = (
        lambda: b"[" * depth + b"]" * dice.choice((0, depth)),
        lambda: b'{"a":' * depth + b"1" + b"}" * depth,
        lambda: b'{"weight": ' + b"9" * dice.choice((5_000, 300_000)) + b"}",
        lambda: b'{"sources": [' + b'{"name": "a", "weight": 1e999},' * 3 + b"{}]}",
        lambda: b"[" + b"[]," * 1_000_000 + b"[]]",
        lambda: b'{"a": "' + b"x" * 3_000_000 + b'"}',
        lambda: b"{" + b'"a":1,' * 100_000 + b'"a":2}',
        lambda: valid.replace(b'"', b"'"),
        lambda: valid + valid,
        lambda: valid[: dice.randrange(len(valid) + 1)],
        lambda: valid.decode().encode("utf-16"),
        lambda: b"\xef\xbb\xbf" + valid,
        lambda: b"null",
        lambda: b"[]",
        lambda: b"7",
        lambda: b'"\\ud800"',
        lambda: b"",
        lambda: spoil_bytes(valid, dice),
        lambda: spoil_bytes(valid, dice),
    )
    return dice.choice(made)()
