"""The judge of mixtures: corpora, runs, records and statistics of benchmarks/mixture_quality.py."""
