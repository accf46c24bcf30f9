"""Checkpoints: DeepSpeed's plus ours, complete or invisible, verified before they are used."""

from fastmix_mega.training.checkpoint.store import Checkpoints

__all__ = ["Checkpoints"]
