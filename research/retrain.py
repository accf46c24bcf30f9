"""`fastmix retrain` of a configuration rather than of a run folder, for mixtures from anywhere.

    python -m research.retrain configs/demo.yaml --mixture runs/demo/mixture.json \\
        --seeds 101 102 103 --nproc 2 --output runs/retrain

The judge itself is `fastmix_mega.evaluation.retrain`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fastmix_mega.cli.main import main as command
from fastmix_mega.cli.retrain import run_study
from fastmix_mega.configuration import load_config
from fastmix_mega.evaluation.retrain import (
    Study,
    candidate_of,
    judged_on,
    require_different_names,
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--mixture", nargs="+", required=True, help="mixture.json files or names")
    parser.add_argument("--baseline", default="uniform")
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103])
    parser.add_argument("--nproc", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/retrain"))
    options = parser.parse_args()
    sets, notes = judged_on(load_config(options.config))
    candidates = [candidate_of(given) for given in (options.baseline, *options.mixture)]
    require_different_names(candidates)
    print("\n".join(notes))
    study = Study(options.config, sets, candidates, options.seeds, options.output)
    return run_study(command, study, options.nproc)


if __name__ == "__main__":
    sys.exit(main())
