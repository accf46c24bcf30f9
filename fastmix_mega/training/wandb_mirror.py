"""A run's numbers in Weights & Biases: one run there for one run folder, however often it goes on.

The id stands in the run folder's wandb.json, so that a run that continues is continued there too.
Without a login or a network, `online` falls back to files on this machine and says so. The
variables WANDB_MODE, WANDB_ENTITY, WANDB_PROJECT, WANDB_RUN_GROUP and WANDB_NAME are honoured; what
the configuration says in so many words goes before them, and WANDB_MODE then only ever makes it
send less.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastmix_mega.config.schema import Config
from fastmix_mega.files import write_json

MODES = ("disabled", "offline", "online")
"""From nothing to everything that leaves the machine."""
NETWORK_SECONDS = 60.0
START_SECONDS = 20.0
"""For a Python process to start and to load wandb, on a busy machine."""
ANSWER = "login: "
LOG_IN = f"""
import wandb

try:
    reason = "" if wandb.login(prompt=False) else "there is no login; `wandb login` makes one"
except Exception as error:
    reason = (str(error) or type(error).__name__).splitlines()[0]
print("{ANSWER}" + reason, flush=True)
"""


def start_wandb(
    config: Config,
    start_step: int,
    say: Callable[[str], None],
    network_seconds: float = NETWORK_SECONDS,
) -> Any:
    """A wandb run for this run folder; None if none is wanted.

    Args:
        config: the run.
        start_step: steps made before; 0 begins a new run there.
        say: gets a line for what goes another way than asked.
        network_seconds: to wait for the service.
    """
    mode = wanted_mode(config)
    if mode == "disabled":
        return None
    # Wandb reads it too, and ends with a stack trace where it holds another word.
    os.environ["WANDB_MODE"] = mode
    import wandb

    parent, name = Path(config.run_dir).resolve().parts[-2:]
    log = config.log
    given = "wandb_project" in log.model_fields_set
    options = {
        "id": run_id(Path(config.run_dir), start_step),
        "entity": os.environ.get("WANDB_ENTITY"),
        "project": log.wandb_project
        if given
        else os.environ.get("WANDB_PROJECT", log.wandb_project),
        "group": os.environ.get("WANDB_RUN_GROUP", parent),
        "name": os.environ.get("WANDB_NAME", f"{parent}/{name}"),
        "dir": config.run_dir,
        "config": config.model_dump(mode="json") | {"resumed_at_step": start_step},
        # The console stays ours: no prompts, no interception of stdout.
        "settings": wandb.Settings(silent=True, console="off", init_timeout=network_seconds),
    }
    if mode == "online":
        reason = why_offline(network_seconds)
        if not reason:
            try:
                return wandb.init(mode="online", resume="allow", **options)
            except (wandb.errors.Error, OSError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                # Else the id would still be in use by the try that failed.
                wandb.teardown()
        say(
            f"warning: log.wandb: online does not work ({reason}); the run logs offline, into "
            f"{config.run_dir}/wandb, and `wandb sync` sends it later"
        )
    return wandb.init(mode="offline", **options)


def why_offline(seconds: float) -> str:
    """Why wandb's service cannot be used from here; empty if it can.

    A process of its own logs in: wandb's own service process may go on trying for minutes after a
    login that failed, and whatever comes next in the same program would wait for it.

    Args:
        seconds: to wait for the service.
    """
    # Another WANDB_SERVICE is a process of ours, and this one must not talk to it.
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    program = subprocess.Popen(
        [sys.executable, "-c", LOG_IN],
        env=environment | {"WANDB_SILENT": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        answer, _ = program.communicate(timeout=seconds + START_SECONDS)
    except subprocess.TimeoutExpired:
        return f"no answer within {seconds:.0f} s"
    finally:
        # Its service process is in the same group, and may outlive it.
        with suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()
    lines = [line for line in answer.splitlines() if line.startswith(ANSWER)]
    return lines[-1].removeprefix(ANSWER) if lines else "the login ended without a word"


def wanted_mode(config: Config) -> str:
    """`disabled`, `offline` or `online`, from the configuration and WANDB_MODE."""
    asked = os.environ.get("WANDB_MODE", "").lower()
    asked = {"dryrun": "offline", "run": "online"}.get(asked, asked)
    if asked not in MODES:
        return config.log.wandb
    if "wandb" not in config.log.model_fields_set:
        return asked
    return min(asked, config.log.wandb, key=MODES.index)


def run_id(directory: Path, start_step: int) -> str:
    """The id of the run folder's run: a new one at its start, the same whenever it goes on."""
    path = directory / "wandb.json"
    if start_step > 0:
        try:
            found = json.loads(path.read_bytes())["id"]
        except (OSError, ValueError, KeyError, TypeError):
            pass
        else:
            if isinstance(found, str) and found:
                return found
    fresh = uuid.uuid4().hex[:8]
    write_json(path, {"id": fresh})
    return fresh
