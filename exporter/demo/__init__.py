"""`--demo`: the exporter on a server of its own, with queues like Open Archiver's."""

from exporter.demo.run import choose_store, run_demo

__all__ = ["choose_store", "run_demo"]
