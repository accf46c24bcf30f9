"""The judge of mixtures: corpora, runs, records and statistics of research/mixture_quality.py."""
