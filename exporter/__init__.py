"""Prometheus exporter and Jobs API for BullMQ queues.

Each package has one responsibility, and imports point one way (docs/architecture.md):
`exporter.stores` reads queues where they are kept, `exporter.collect` keeps watch,
`exporter.metrics` exposes the result to Prometheus, `exporter.web` answers HTTP, and `exporter.app`
starts and stops them.
"""

__version__ = "0.1.0"
