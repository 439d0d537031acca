"""`--demo`: the exporter on a Valkey of its own, with queues like Open Archiver's."""

from exporter.demo.run import run_demo

__all__ = ["run_demo"]
