"""`method: doremi`: a reference run at the initial mixture, then the proxy's run against it.

DoReMi's first two steps (Xie et al., 2023, arXiv 2305.10429); its third is `fastmix train`. The
reference is an ordinary `fastmix train` in run_dir/reference, kept if the search starts again.
"""

from __future__ import annotations

import sys
from typing import Any

from fastmix_mega.config.schema import Config, parse_config
from fastmix_mega.methods.choice import reference_folder
from fastmix_mega.methods.regmix import is_done
from fastmix_mega.methods.start import initial_or_uniform
from fastmix_mega.parallel import layout as parallel_layout
from fastmix_mega.training.stop import StopRequest
from fastmix_mega.training.trainer import run_within


def search(config: Config) -> None:
    """Train the reference if it is missing, then search. Collective.

    Raises:
        Stopped: after a checkpoint, if a signal or a stop file asked for it.
        UserError: if the reference's folder holds another run.
    """
    reference = reference_config(config)
    done = is_done(reference)
    request = StopRequest(config.run_dir)
    with parallel_layout.start(config.parallel) as layout, request.listening():
        if not done:
            if layout.is_main:
                print("doremi: the reference run", file=sys.stderr)
            run_within(layout, reference, "train", request)
        run_within(layout, config, "search", request)


def reference_config(config: Config) -> Config:
    """The configuration of the reference's run."""
    given: dict[str, Any] = config.model_dump(mode="json")
    return parse_config(
        given
        | {
            "run_dir": reference_folder(config.run_dir),
            "method": "fastmix",
            "mixture": initial_or_uniform(config),
            "stages": [],
            "targets": [],
            "search": {},
            "doremi": {},
            "evaluation": {},
            "checkpoint": given["checkpoint"] | {"final": True, "keep": 1},
            "log": given["log"] | {"wandb": "disabled"},
        },
        where="the reference run",
    )
