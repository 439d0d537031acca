"""How many workers each queue has, where the server tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from exporter.bullmq.batches import batched
from exporter.bullmq.connection import RedisReader, RedisRefused
from exporter.bullmq.keys import Queue
from exporter.bullmq.turns import Turns

# Queues whose workers are counted before others have their turn: 1 ms.
QUEUES_AT_ONCE = 500

OUR_NAME = b"bullmq-exporter"


async def count_workers(
    redis: RedisReader, queues: Iterable[Queue], *, database: int, turns: Turns
) -> Mapping[Queue, int]:
    """The connections that BullMQ's workers have named, by queue.

    Managed Redis often forbids CLIENT LIST, or drops the names that clients set: Open Archiver saw
    0 workers there while 48 were connected. So we name our own connection first, and where the list
    does not show that name, it is not to be believed. Raises RedisUnavailable, and RedisRefused
    where the workers cannot be known.
    """
    _, listed = await redis.pipeline(
        [("CLIENT", "SETNAME", OUR_NAME), ("CLIENT", "LIST", "TYPE", "normal")]
    )
    if not isinstance(listed, bytes):
        raise RedisRefused(f"Redis refused CLIENT LIST: {listed}")
    names: Counter[bytes] = Counter()
    for line in listed.splitlines():
        client = dict(field.partition(b"=")[::2] for field in line.split(b" "))
        # The list is of all databases; the same queue may live in another one too.
        if client.get(b"db") == b"%d" % database:
            names.update(_and_unnamed(client.get(b"name", b"")))
    if OUR_NAME not in names:
        raise RedisRefused("CLIENT LIST does not show the names that clients set")
    workers: dict[Queue, int] = {}
    for batch in batched(queues, QUEUES_AT_ONCE):
        for queue in batch:
            # A Python worker has two connections of its name, one of them while it starts.
            connections = names.get(queue.python_client_name, 0)
            workers[queue] = names.get(queue.node_client_name, 0) + (connections + 1) // 2
        await turns.give_way()
    return workers


def _and_unnamed(name: bytes) -> Iterator[bytes]:
    """A connection's name, and what it is without the worker's own; a prefix may hold `:w:` too."""
    yield name
    while b":w:" in name:
        name = name.rpartition(b":w:")[0]
        yield name
