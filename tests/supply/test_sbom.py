"""The list of packages: nothing is lost, and what lacks something is named."""

from __future__ import annotations

from typing import Any

from tests.supply.licences import installed
from tests.supply.sbom import complete, missing


def component(name: str, version: str, hashes: bool = True) -> dict[str, Any]:
    found = {"alg": "SHA-256", "content": "0" * 64}
    reference = {"type": "distribution", "url": "u", "hashes": [found] if hashes else []}
    return {"name": name, "version": version, "type": "library", "externalReferences": [reference]}


def test_licences_come_from_what_is_installed() -> None:
    listed = [component("PyYAML", "6"), component("nvidia-nothing", "1")]
    content: dict[str, Any] = {"metadata": {}, "components": listed}
    complete(content, installed())
    assert content["metadata"]["component"]["name"] == "fastmix-mega"
    assert content["components"][0]["licenses"] == [{"license": {"name": "MIT License"}}]
    assert "licenses" not in content["components"][1]


def test_what_a_package_lacks_is_named() -> None:
    content = {
        "components": [component("a.b", "1"), component("c", "2"), component("d", "3", False)]
    }
    lock = "a-b==1 \\\n    --hash=sha256:0\nc==4 \\\nd==3 \\\ne==5"
    found = ["c==4 is not listed", "d has no hash", "e==5 is not listed"]
    assert missing(content, lock) == found
