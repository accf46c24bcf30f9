"""Weights that a run starts from: another run's checkpoint, or a Hugging Face folder."""
