"""Checkpoints: DeepSpeed's plus ours, complete or invisible, verified before they are used."""

from fastmix_mega.checkpoint.store import Checkpoints

__all__ = ["Checkpoints"]
