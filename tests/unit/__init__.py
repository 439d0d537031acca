"""Logic without a server: `make unit` runs them in seconds."""
