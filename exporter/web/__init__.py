"""What HTTP clients are told: the metrics port and the Jobs API."""
