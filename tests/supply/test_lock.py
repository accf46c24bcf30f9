"""requirements.lock belongs to requirements.txt, and the licences here have been looked at."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.supply.licences import is_allowed, refused
from tests.supply.sbom import name_of

ROOT = Path(__file__).parent.parent.parent
LOCK = (ROOT / "requirements.lock").read_text()


def test_the_lock_is_of_these_requirements() -> None:
    locked = {
        name_of(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", LOCK, re.M)
    }
    asked = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.M)
    assert len(asked) > 20
    other = {name: version for name, version in asked if locked.get(name_of(name)) != version}
    assert not other, "run make lock"


def test_every_package_has_hashes() -> None:
    entries = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.M)[1:]
    assert len(entries) > 100
    bare = [each.split()[0] for each in entries if "--hash=sha256:" not in each]
    assert not bare


def test_every_licence_is_allowed() -> None:
    assert refused() == []


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("BSD-3-Clause AND (MIT OR Apache-2.0)", True),
        ("Mozilla Public License 2.0 (MPL 2.0)", True),
        ("GPL-3.0-only", False),
        ("MIT AND LGPL-2.1", False),
        ("GNU Affero General Public License v3", False),
        ("Proprietary", False),
        ("unknown", False),
    ],
)
def test_what_is_allowed(licence: str, allowed: bool) -> None:
    assert is_allowed(licence) == allowed
