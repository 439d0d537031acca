"""The exporter with Prometheus, Alertmanager, a browser, the image or the chart."""
