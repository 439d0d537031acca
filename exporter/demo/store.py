"""The interface of the demo's servers."""

from __future__ import annotations

import socket
from typing import Any, Protocol

from bullmq import Queue

from exporter.settings import Settings

HOST = "127.0.0.1"


class DemoStore(Protocol):
    """A server that holds the demo's queues and nothing else."""

    # A description for people.
    kind: str
    # How BullMQ's queues, flows and workers connect to it.
    options: dict[str, Any]

    async def write_meta(self, queue: Queue) -> None:
        """Write what Node's Queue writes when it is constructed, and Python's does not."""

    async def write_heartbeat(self, queue: Queue) -> None:
        """Write the heartbeat of Open Archiver's workers, if the server has a place for it."""

    async def settings_to_read(self, settings: Settings) -> Settings:
        """The settings with this server in place of any that they name."""


def free_port() -> int:
    """A port of the system's choice: two demos may run at once."""
    with socket.create_server((HOST, 0)) as sock:
        return int(sock.getsockname()[1])
