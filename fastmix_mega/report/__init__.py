"""One self-contained HTML page that explains a run."""
