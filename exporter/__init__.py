"""Prometheus exporter and Jobs API for BullMQ queues.

Three kinds of knowledge, one package each, and imports that point one way:
`exporter.bullmq` reads what BullMQ keeps in Redis, `exporter.prometheus` exposes it to
Prometheus, `exporter.web` answers HTTP. `exporter.app` starts and stops them.
"""

__version__ = "0.1.0"
