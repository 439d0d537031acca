"""Collectors of slow facts, which are read less often than counts and ages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from exporter.concurrency.batches import batched
from exporter.concurrency.rounds import ReadInRounds
from exporter.queues.json_values import parse_json
from exporter.queues.queue import Queue
from exporter.queues.retention import RETENTION_OPTIONS, kept_jobs
from exporter.queues.snapshot import QueueReading, QueueSchedulers
from exporter.settings import Settings
from exporter.stores.base import Collector
from exporter.stores.postgres.client import PostgresReader, sendable
from exporter.stores.postgres.errors import PostgresRefused
from exporter.stores.postgres.schedulers import read_schedulers
from exporter.stores.postgres.statements import load_statement
from exporter.stores.retention import Ceilings, RetentionReads

CONNECTIONS, RETENTION = load_statement("connections.sql"), load_statement("retention.sql")

# Queues that one statement reads.
QUEUE_BATCH_SIZE = 100
# Connection names that are read at most. If there are more, workers are not counted.
MAX_NAMES = 10_000
# Bytes of `application_name` that PostgreSQL keeps.
MAX_NAME_BYTES = 63
# The separator between a queue's name and a worker's name (6.7.0: WORKER_SUFFIX).
WORKER = ":w:"


def all_collectors(reader: PostgresReader, settings: Settings) -> list[Collector]:
    """The collectors that these settings enable."""
    enabled: list[Collector] = []
    if settings.workers_interval:
        enabled.append(Workers(reader, settings))
    return [*enabled, Retention(reader, settings), Schedulers(reader, settings)]


class Workers:
    """Counts the connections that BullMQ's workers have named, by queue.

    A worker on Node.js names the connection on which it waits for jobs: `<queue>` or
    `<queue>:w:<worker>` (6.7.0). A worker in Python puts `<schema>:` in front, and also names the
    connection on which it processes jobs: it has two named connections, or one until it has first
    waited and after the server was restarted (3.4.4). So Python workers are counted as half of
    their connections, which is the lowest number possible.

    PostgreSQL keeps 63 bytes of a name and replaces characters outside ASCII with `?`. So workers
    are not known for queues whose names are longer or contain other characters.
    """

    name = "workers"
    max_share = 0.01
    problem = "workers cannot be counted"
    consequence = "bullmq_queue_workers is absent and BullMQNoWorker cannot fire"

    def __init__(self, reader: PostgresReader, settings: Settings) -> None:
        self.interval = settings.workers_interval
        self._reader, self._schema = reader, settings.postgres.schema_name

    async def collect(
        self,
        readings: Sequence[QueueReading],
        *,
        seconds: float,  # noqa: ARG002 - it is one statement, so nothing is left for the next run
    ) -> Mapping[Queue, int]:
        """Returns the number of workers of each queue. Raises PostgresUnavailable, and
        PostgresRefused if they cannot be counted.
        """
        rows = await self._reader.read(CONNECTIONS, most=MAX_NAMES)
        if not any(is_ours for _, _, is_ours, _ in rows):
            raise PostgresRefused("pg_stat_activity does not show the names that clients set")
        if any(is_standby for *_, is_standby in rows):
            raise PostgresRefused("it is a standby, and workers are connected to the primary")
        if len(rows) == MAX_NAMES:
            raise PostgresRefused(f"pg_stat_activity has more than {MAX_NAMES} different names")
        workers, cut_off = self._count({name: number for name, number, *_ in rows})
        return {
            queue: workers[name]
            for queue in (reading.queue for reading in readings)
            if (name := _countable(queue)) is not None
            and not any(f"{name}{WORKER}".startswith(start) for start in cut_off)
        }

    def _count(self, connections: Mapping[str, int]) -> tuple[Counter[str], list[str]]:
        """Returns the number of workers by queue name, and the beginnings of queue names that are
        cut off in the connection names of Python workers.
        """
        workers, cut_off = Counter[str](), []
        for name, number in connections.items():
            own = name.removeprefix(f"{self._schema}:")
            # BullMQ on Node.js allows no colon in a queue's name; a queue may be named like the
            # schema.
            if own == name or name.startswith(f"{self._schema}{WORKER}"):
                workers[name.partition(WORKER)[0]] += number
            elif WORKER not in own and len(name) == MAX_NAME_BYTES:
                cut_off.append(own)
            else:
                workers[own.partition(WORKER)[0]] += (number + 1) // 2
        return workers, cut_off

    def forget(self) -> None:
        """Does nothing, because nothing is remembered."""


def _countable(queue: Queue) -> str | None:
    """Returns the queue's name if its workers' connection names show all of it, otherwise None."""
    raw = queue.raw_name
    shown = raw.isascii() and raw.decode("ascii", "replace").isprintable()
    return raw.decode() if shown and len(raw) + len(WORKER) <= MAX_NAME_BYTES else None


class Retention(RetentionReads):
    """Reads the options of the newest finished jobs."""

    max_share = 0.01
    batch_size = QUEUE_BATCH_SIZE

    def __init__(self, reader: PostgresReader, settings: Settings) -> None:
        super().__init__(settings)
        self._reader = reader

    async def _read_batch(self, queues: Sequence[Queue]) -> dict[Queue, Ceilings]:
        rows = await self._reader.read(
            RETENTION,
            at=[*range(len(queues))],
            names=[sendable(queue.raw_name) for queue in queues],
        )
        found: dict[Queue, Ceilings] = {}
        for at, *options in rows:
            asked = zip(RETENTION_OPTIONS, map(parse_json, options), strict=True)
            limits = ((state, kept_jobs(option)) for state, option in asked)
            known = {state: limit for state, limit in limits if limit is not None}
            found[queues[at]] = known | self._configured
        return found


class Schedulers(ReadInRounds[QueueSchedulers]):
    """Reads up to `max_schedulers` schedulers of each queue that have not ended, the same ones as
    the poll, and counts how many of them are duplicates: they add a job of the same name with the
    same data as another one.
    """

    name = "schedulers"
    max_share = 0.01
    problem = "schedulers cannot be read"
    consequence = (
        "bullmq_queue_duplicate_schedulers and bullmq_scheduler_last_run_timestamp_seconds, "
        "_interval_seconds and _info are absent and BullMQScheduleDuplicated cannot fire"
    )

    def __init__(self, reader: PostgresReader, settings: Settings) -> None:
        super().__init__(settings.discovery_interval)
        self._reader, self._most = reader, settings.max_schedulers

    async def collect(
        self, readings: Sequence[QueueReading], *, seconds: float
    ) -> Mapping[Queue, QueueSchedulers]:
        """Returns the schedulers that are known after a round. Raises PostgresUnavailable."""
        number = {reading.queue: reading.schedulers for reading in readings}
        without = {
            queue: QueueSchedulers(duplicates=0) for queue, each in number.items() if each == 0
        }
        queues = [queue for queue in number if queue not in without] if self._most else []
        known = await self._rounds.read(queues, _batches, self._read_batch, seconds=seconds)
        return without | dict(known)

    async def _read_batch(self, queues: Sequence[Queue]) -> dict[Queue, QueueSchedulers]:
        found = await read_schedulers(self._reader, queues, most=self._most)
        return {
            queue: QueueSchedulers(
                tuple(scheduler for scheduler, _ in some),
                duplicates=len(some) - len({(each.name, data) for each, data in some}),
            )
            for queue, some in found.items()
        }


def _batches(queues: Iterable[Queue]) -> Iterator[list[Queue]]:
    return batched(queues, QUEUE_BATCH_SIZE)
