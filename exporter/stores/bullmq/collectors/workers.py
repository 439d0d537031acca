"""How many workers each queue has, if the server shows that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from exporter.concurrency.batches import batched
from exporter.concurrency.request_priority import RequestPriority
from exporter.queues.queue import Queue
from exporter.queues.snapshot import QueueReading
from exporter.settings import Settings
from exporter.stores.bullmq.bull_queues import BullQueues
from exporter.stores.bullmq.keys import node_client_name, python_client_name
from exporter.stores.redis.client import RedisReader, RedisRefused

# Queues whose workers are counted before requests are served: 1 ms.
QUEUE_BATCH_SIZE = 500

OUR_NAME = b"bullmq-exporter"

# The last commands of a connection that only waits for jobs; before its first wait Redis 7.0 shows
# none. Bull 4 names only these connections. Bull 3 gives all connections of a queue the same name,
# including those of processes that only add jobs.
WAITING_FOR_JOBS = frozenset(
    (
        *(b"brpoplpush", b"client", b"client|setname", b"client|setinfo"),
        *(b"select", b"hello", b"auth", b"null"),
    )
)


class Workers:
    """Counts the connections that workers of BullMQ and Bull have named, by queue.

    Managed Redis often forbids CLIENT LIST, or drops the names that clients set: Open Archiver saw
    0 workers there while 48 were connected. So we name our own connection first; if the list does
    not show that name, it is not trusted.
    """

    name = "workers"
    # CLIENT LIST answers a line for each connection, however many there are.
    max_share = 0.01
    problem = "workers cannot be counted"
    consequence = "bullmq_queue_workers is absent and BullMQNoWorker cannot fire"

    def __init__(
        self,
        redis: RedisReader,
        settings: Settings,
        request_priority: RequestPriority,
        bull_queues: BullQueues,
    ) -> None:
        self.interval = settings.workers_interval
        self._redis, self._database, self._request_priority = (
            redis,
            settings.redis.db,
            request_priority,
        )
        self._bull_queues = bull_queues

    async def collect(
        self,
        readings: Sequence[QueueReading],
        *,
        seconds: float,  # noqa: ARG002 - nothing could be left to the next run
    ) -> Mapping[Queue, int]:
        """The number of workers of each queue. Raises RedisUnavailable, and RedisRefused if they
        cannot be known.
        """
        _, listed = await self._redis.pipeline(
            [("CLIENT", "SETNAME", OUR_NAME), ("CLIENT", "LIST", "TYPE", "normal")]
        )
        if not isinstance(listed, bytes):
            raise RedisRefused(f"Redis refused CLIENT LIST: {listed}")
        names: Counter[bytes] = Counter()
        names_of_bull: Counter[bytes] = Counter()
        for line in listed.splitlines():
            client = dict(field.partition(b"=")[::2] for field in line.split(b" "))
            # The list covers all databases; another one may have a queue of the same name.
            if client.get(b"db") == b"%d" % self._database:
                names.update(_and_unnamed(client.get(b"name", b"")))
                if client.get(b"cmd", b"").lower() in WAITING_FOR_JOBS:
                    names_of_bull[client.get(b"name", b"")] += 1
        if OUR_NAME not in names:
            raise RedisRefused("CLIENT LIST does not show the names that clients set")
        workers: dict[Queue, int] = {}
        for batch in batched([reading.queue for reading in readings], QUEUE_BATCH_SIZE):
            for queue in batch:
                if queue in self._bull_queues:
                    workers[queue] = names_of_bull[node_client_name(queue)]
                    continue
                # A Python worker has two connections with its name, but only one while it starts.
                connections = names.get(python_client_name(queue), 0)
                workers[queue] = names.get(node_client_name(queue), 0) + (connections + 1) // 2
            await self._request_priority.yield_to_requests()
        return workers

    def forget(self) -> None:
        """Nothing is remembered."""


def _and_unnamed(name: bytes) -> Iterator[bytes]:
    """A connection's name with and without the worker's own; a prefix may contain `:w:` too."""
    yield name
    while b":w:" in name:
        name = name.rpartition(b":w:")[0]
        yield name
