"""Checkpoints: DeepSpeed's plus ours, complete or invisible, verified before they are used."""
