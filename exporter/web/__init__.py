"""The HTTP servers: the metrics port, and the port of the Jobs API and the page."""
