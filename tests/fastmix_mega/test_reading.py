from __future__ import annotations

from pathlib import Path

import pytest

from fastmix_mega.config.parse import read_yaml
from fastmix_mega.errors import UserError
from fastmix_mega.reading import read_json, read_limited


def test_only_files_within_limits_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_limited(path, 5) == b"12345"
    with pytest.raises(UserError, match="more than"):
        read_limited(path, 4)
    with pytest.raises(UserError, match="no ordinary file"):
        read_limited("/dev/zero")
    with pytest.raises(UserError, match="cannot read /proc/self/mem"):
        read_limited("/proc/self/mem")
    with pytest.raises(IsADirectoryError):
        read_limited(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_limited(tmp_path / "missing")


def test_half_a_pair_of_surrogates_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": "\\ud83e\\udd8a"}')
    assert read_json(path) == {"a": "🦊"}
    path.write_text('{"a": "\\uD83E"}')
    with pytest.raises(ValueError, match="surrogates not allowed"):
        read_json(path)


LAUGHS = "\n".join(
    ["a0: &a0 lol", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))]
)
MERGES = "\n".join(
    [
        "a0: &a0 {k: 1}",
        *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 9)),
    ]
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "more than 100,000 values"),
        (MERGES, "more than 100,000 values"),
        ("- a\n" * 100_001, "more than 100,000 values"),
        ("a: &a [*a]", "within itself"),
        ("[" * 20_000, "nested too deeply"),
        ("a: " + "9" * 5_000, "a number of 5,000 characters"),
        ("a: " + ":".join(["59"] * 2_000), "a number of 5,999 characters"),
        ("a: " + ":".join(["59"] * 900) + ".5", "not valid YAML"),
        ('a: !!int ""', "not valid YAML"),
        ("a: !!bool x", "not valid YAML"),
        ("a: !!timestamp x", "not valid YAML"),
        ("a: !!python/object/apply:os.system [exit]", "could not determine a constructor"),
        ('a: "\\ud800"', "surrogates not allowed"),
        ("x" * (5 << 20), "more than 4 MiB"),
    ],
)
def test_yaml_that_is_made_to_do_harm(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_yaml(text, "f")


def test_anchors_are_fine() -> None:
    assert read_yaml("a: &a {b: 1}\nc: [*a, *a]\nd: {<<: *a, e: 2}", "f") == {
        "a": {"b": 1},
        "c": [{"b": 1}] * 2,
        "d": {"b": 1, "e": 2},
    }
