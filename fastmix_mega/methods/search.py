"""`fastmix search`: whichever way `method` finds the mixture, the same files come of it."""

from __future__ import annotations

import os

from fastmix_mega.cli.imports import import_libraries
from fastmix_mega.config.methods import SWARMS, UNTRAINED
from fastmix_mega.config.schema import Config


def search(config: Config) -> None:
    """Find the mixture. Collective.

    Raises:
        Stopped: after a checkpoint, if a signal or a stop file asked for it.
        UserError: if the data or the run folder is not what it must be.
    """
    if config.method in UNTRAINED:
        from fastmix_mega.methods.answer import finish
        from fastmix_mega.methods.untrained import untrained_mixture
        from fastmix_mega.training.identity import record_run

        if os.environ.get("RANK", "0") == "0":
            mixture = untrained_mixture(config)
            record_run(config, "search", None)
            finish(config, mixture)
        return
    import_libraries()
    if config.method in SWARMS:
        from fastmix_mega.methods import regmix as swarm

        swarm.search(config)
    elif config.method == "doremi":
        from fastmix_mega.methods import doremi

        doremi.search(config)
    else:
        from fastmix_mega.training.trainer import run

        run(config, "search")
