"""BullMQ's names of the keys of a queue, and of the connections of its workers."""

from __future__ import annotations

import base64

from exporter.queues.queue import Queue


def meta_key(queue: Queue) -> bytes:
    """The hash with the version, the limits and whether the queue is paused."""
    return queue.base + b"meta"


def events_key(queue: Queue) -> bytes:
    """The event stream."""
    return queue.base + b"events"


def repeat_key(queue: Queue) -> bytes:
    """The sorted set of schedulers, by when they run next."""
    return queue.base + b"repeat"


def scheduler_key(queue: Queue, key: bytes) -> bytes:
    """The hash of one scheduler, by its member of `repeat`."""
    return queue.base + b"repeat:" + key


def heartbeat_key(queue: Queue) -> bytes:
    """Written by Open Archiver's workers (workers/supervision.ts): epoch ms, TTL 10 minutes."""
    return b"oa:worker:%b:alive" % queue.raw_name


def node_client_name(queue: Queue) -> bytes:
    """The name of a Node worker's one blocking connection (QueueBase.clientName()).

    A named worker appends `:w:<name>`.
    """
    return b"%b:%b" % (queue.prefix.encode(), base64.b64encode(queue.raw_name))


def python_client_name(queue: Queue) -> bytes:
    """The name of both connections of a worker of the Python client (3.4: setName)."""
    return queue.base[:-1]
