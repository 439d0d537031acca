"""Ports that are free for a test alone."""

from __future__ import annotations

import random
import socket
from pathlib import Path


def _first_ephemeral_port() -> int:
    return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])


# In another order in each process, so that several seldom try the same one.
_ports = list(range(10_000, max(_first_ephemeral_port(), 20_000)))


random.shuffle(_ports)


def free_port() -> int:
    """A port that nobody listens on, and that stays so until the test uses it.

    Not one that the system would choose: until a server listens on it, or while one restarts, any
    connection of this machine could get it as its own. The abstract socket reserves it among all
    processes that run tests, until they end.
    """
    while _ports:
        port = _ports.pop()
        reservation = socket.socket(socket.AF_UNIX)
        try:
            reservation.bind(f"\0bullmq-exporter-tests-port-{port}")
            with socket.create_server(("127.0.0.1", port)):
                reservation.detach()  # open until this process ends
                return port
        except OSError:
            reservation.close()
    raise AssertionError("no port is left")
