"""What the exporter holds and counts in the long run: `make soak`."""
