"""The HTTP servers: the metrics port and the Jobs API."""
