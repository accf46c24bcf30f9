"""Training a model on a mixture, step by step."""
