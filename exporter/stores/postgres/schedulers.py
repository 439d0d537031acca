"""Job schedulers: what they repeat, and when they ran."""

from __future__ import annotations

import time
from collections.abc import Sequence

from exporter.queues.json_values import parse_json
from exporter.queues.queue import Queue
from exporter.queues.snapshot import Scheduler
from exporter.queues.text import label_text
from exporter.stores.postgres.client import PostgresReader, Row, raw_text, sendable
from exporter.stores.postgres.statements import load_statement

SCHEDULERS, PAGE = load_statement("schedulers.sql"), load_statement("scheduler_page.sql")
TOTAL = load_statement("scheduler_total.sql")

MAX_TEXT_LENGTH = 1000  # characters


async def read_scheduler_page(
    reader: PostgresReader, queue: Queue, *, start: int, limit: int
) -> tuple[int, tuple[Scheduler, ...]]:
    """Returns the number of a queue's schedulers, and `limit` of them from index `start` on,
    ordered by their next run. Raises PostgresUnavailable.
    """
    [(total,)], rows = await reader.read_together(
        [TOTAL, PAGE],
        queue=sendable(queue.raw_name),
        start=start,
        limit=limit,
        length=MAX_TEXT_LENGTH,
    )
    return total, tuple(_scheduler(queue, row) for row in rows)


async def read_schedulers(
    reader: PostgresReader, queues: Sequence[Queue], *, most: int
) -> dict[Queue, list[tuple[Scheduler, str]]]:
    """Returns at most `most` schedulers of each queue that have not ended, each with a hash of the
    data of its jobs. Raises PostgresUnavailable.
    """
    rows = await reader.read(
        SCHEDULERS,
        at=[*range(len(queues))],
        names=[sendable(queue.raw_name) for queue in queues],
        length=MAX_TEXT_LENGTH,
        most=most,
        now=int(1000 * time.time()),
    )
    found: dict[Queue, list[tuple[Scheduler, str]]] = {queue: [] for queue in queues}
    for row in rows:
        queue = queues[row[0]]
        found[queue].append((_scheduler(queue, row), row[-1]))
    return found


def _scheduler(queue: Queue, row: Row) -> Scheduler:
    _, scheduler_id, next_run, name, pattern, tz, every, limit, end_date, iterations, *job, _ = row
    added, taken, count = job
    # A worker adds the next job when it takes the previous one, so that is when the scheduler last
    # ran. The first job is added when the scheduler is registered, which does not count as a run.
    number = parse_json(count)
    ran = added if isinstance(number, int) and number > 1 else None
    return Scheduler(
        queue=queue,
        key=raw_text(scheduler_id),
        at=str(next_run).encode(),
        label=label_text(raw_text(scheduler_id)),
        name=None if name is None else label_text(raw_text(name)),
        pattern=label_text(raw_text(pattern)) if pattern else None,
        every=every,
        tz=label_text(raw_text(tz)) if tz else None,
        limit=limit,
        end_date=end_date,
        iterations=iterations,
        next_run=next_run,
        next_added=added,
        last_run=ran if taken is None else taken,
    )
