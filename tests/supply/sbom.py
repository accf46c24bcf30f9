"""Completes the list that cyclonedx-py makes of requirements.lock: licences, and what it is of.

    python -m tests.supply.sbom sbom.cdx.json

cyclonedx-py reads the lock alone, which has no licences: those of the packages that are installed
here come from their metadata. Ends with 1 if a package of the lock has no version or no hash.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, version
from pathlib import Path
from typing import Any

from tests.supply.licences import OWN, installed, licence_of

LOCK = Path(__file__).parent.parent.parent / "requirements.lock"


def name_of(text: str) -> str:
    """As package indexes compare names."""
    return re.sub(r"[-_.]+", "-", text).lower()


def complete(content: dict[str, Any], packages: Iterable[Distribution]) -> None:
    """Add the main component, and licences of the packages, to a list in CycloneDX's format."""
    known = {name_of(each.metadata["Name"]): each for each in packages}
    content["metadata"]["component"] = {
        "type": "application",
        "bom-ref": OWN,
        "name": OWN,
        "version": version(OWN),
    }
    for component in content["components"]:
        # A line of the lock with all its hashes, which stand below anyhow.
        component.pop("description", None)
        package = known.get(name_of(component["name"]))
        licence = "unknown" if package is None else licence_of(package)
        if package is not None and licence != "unknown":
            expression = package.metadata.get_all("License-Expression", [])
            one: dict[str, Any] = {"license": {"name": licence}}
            component["licenses"] = [{"expression": licence} if expression else one]


def missing(content: dict[str, Any], lock: str) -> list[str]:
    """What a package of the lock lacks in the list, in words."""
    # A package may stand there in several versions, each for its own systems.
    listed = {(name_of(each["name"]), each.get("version")): each for each in content["components"]}
    found = []
    for name, wanted in re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE):
        component = listed.get((name_of(name), wanted))
        if component is None:
            found.append(f"{name}=={wanted} is not listed")
        elif not any(each.get("hashes") for each in component.get("externalReferences", [])):
            found.append(f"{name} has no hash")
    return found


def main() -> int:
    path = Path(sys.argv[1])
    content = json.loads(path.read_text())
    complete(content, installed())
    path.write_text(json.dumps(content, indent=2) + "\n")
    wrong = missing(content, LOCK.read_text())
    for line in wrong:
        print(f"{path}: {line}", file=sys.stderr)
    components = content["components"]
    licensed = sum("licenses" in each for each in components)
    print(
        f"{path}: {len(components)} packages, {licensed} with licences (others are not installed "
        "here)"
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
