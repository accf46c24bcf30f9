"""What a run will need before it runs: memory, communication and a layout (`fastmix plan`)."""
