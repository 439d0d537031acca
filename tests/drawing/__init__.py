"""Screenshots of dashboards and page: `make screenshots`."""
