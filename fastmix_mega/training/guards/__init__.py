"""What watches a run while it trains: agreement, non-finite steps, spikes, doubts, hangs."""
