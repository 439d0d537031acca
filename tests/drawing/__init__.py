"""Screenshots of the dashboards: `make screenshots`."""
