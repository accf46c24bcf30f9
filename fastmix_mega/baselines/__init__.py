"""Mixtures by other means than a search, to compare a search with."""
