"""Indexed token files, sources and the sampler: what a batch is made of."""
