"""Under which licences is what is installed here? Those that nobody has looked at are refused.

    python -m tests.supply.licences

Prints a line a package, and ends with 1 if a package's licence is not allowed below.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions

ALLOWED = (
    *("0BSD", "AFL", "Apache", "BSD", "BSL-1.0", "CC0-1.0", "CNRI-Python", "ISC", "LLVM-exception"),
    *("MIT", "MIT-0", "PSF", "Python Software Foundation", "Unlicense", "Zlib", "Academic Free"),
)
"""Words of licences that ask for no more than to be named."""
FILE_BY_FILE = ("MPL-2.0", "Mozilla Public License 2.0")
"""They hold for changes of their own files, which nobody makes here."""
LOOKED_AT = {
    "chardet": "LGPL; only lm-eval's own requirements (tests, `fastmix eval --tasks`) import it, "
    "unchanged and as a library",
}
"""Others, by package, with the reason why they may be here."""
OWN = "fastmix-mega"
_JOIN = re.compile(r"\s+(?:AND|OR|WITH)\s+|\s*\|\s*")


def licence_of(package: Distribution) -> str:
    """As the package's metadata say: an expression, else classifiers, else a text's first line."""
    about = package.metadata
    expressions = about.get_all("License-Expression", [])
    if expressions:
        return str(expressions[0])
    classifiers = [text for text in about.get_all("Classifier", []) if text.startswith("License")]
    named = [text.split("::")[-1].strip() for text in classifiers if text.count("::") > 1]
    text = "".join(about.get_all("License", [])).strip().split("\n")[0]
    return " | ".join(named) or text or "unknown"


def is_allowed(licence: str) -> bool:
    """Whether every part of a licence is; of alternatives too, which is stricter than needed."""
    parts = [part for part in _JOIN.split(licence) if part.strip()]
    return bool(parts) and all(
        any(re.search(rf"\b{re.escape(word)}", part) for word in (*ALLOWED, *FILE_BY_FILE))
        and not re.search(r"GPL|GNU|Affero|SSPL|Commons Clause", part)
        for part in parts
    )


def installed() -> Iterable[Distribution]:
    """The packages of this environment, and not what one of them brings along for itself."""
    return distributions(path=[sysconfig.get_path("purelib")])


def refused() -> list[str]:
    """Packages of this environment that nobody has allowed, with their licences."""
    found = []
    for package in installed():
        name = package.metadata["Name"]
        if name != OWN and name not in LOOKED_AT and not is_allowed(licence_of(package)):
            found.append(f"{name} {package.version}: {licence_of(package)}")
    return sorted(set(found))


def main() -> int:
    rows = {(each.metadata["Name"], each.version, licence_of(each)) for each in installed()}
    for name, version, licence in sorted(rows, key=lambda row: row[0].lower()):
        print(f"{name:32} {version:20} {licence}")
    wrong = refused()
    for line in wrong:
        print(f"not allowed: {line}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
