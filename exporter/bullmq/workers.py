"""How many workers each queue has, where the server tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from exporter.bullmq.connection import RedisReader
from exporter.bullmq.keys import Queue

OUR_NAME = b"bullmq-exporter"


async def count_workers(redis: RedisReader, queues: Iterable[Queue]) -> Mapping[Queue, int] | None:
    """The connections that BullMQ's workers have named, by queue; None where it cannot be known.

    Managed Redis often forbids CLIENT LIST, or drops the names that clients set: Open Archiver saw
    0 workers there while 48 were connected. So we name our own connection first, and where the list
    does not show that name, it is not to be believed. Raises RedisUnavailable.
    """
    _, listed = await redis.pipeline(
        [("CLIENT", "SETNAME", OUR_NAME), ("CLIENT", "LIST", "TYPE", "normal")]
    )
    if isinstance(listed, Exception):
        return None
    raw = listed if isinstance(listed, bytes) else b""
    names = Counter(
        field[len(b"name=") :].partition(b":w:")[0]
        for line in raw.splitlines()
        for field in line.split(b" ")
        if field.startswith(b"name=")
    )
    if OUR_NAME not in names:
        return None
    return {
        # A Python worker has two connections of its name, one of them while it starts.
        queue: names[queue.node_client_name] + (names[queue.python_client_name] + 1) // 2
        for queue in queues
    }
