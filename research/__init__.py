"""The laboratory: how mixtures are judged, and what was tried."""
