"""Is a list of packages what CycloneDX 1.6 says? With the Python of .venv/supply:

.venv/supply/bin/python tests/supply/validate_sbom.py sbom.cdx.json
"""

from __future__ import annotations

import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

if __name__ == "__main__":
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(Path(sys.argv[1]).read_text())
    if wrong is not None:
        sys.exit(f"{sys.argv[1]} is no list in CycloneDX's format: {wrong}")
    print(f"{sys.argv[1]}: as CycloneDX 1.6 wants it")
