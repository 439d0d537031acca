"""One poll: counts, ages, limits and schedulers of all queues.

Up to QUEUE_BATCH_SIZE queues take two statements, and large counts take a third one
(`large_counts`). The first statement counts unfinished jobs, up to FRESH_JOBS of each state of a
queue, in their partial indexes: for 100 idle queues this takes 2 ms (PostgreSQL 15). The second
reads ages, only for queues that have such jobs. Each statement sees one snapshot.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from exporter.concurrency.batches import batched
from exporter.concurrency.request_priority import RequestPriority
from exporter.queues.limits import QueueLimits
from exporter.queues.queue import Queue, State
from exporter.queues.snapshot import QueueReading
from exporter.queues.text import MAX_SAFE_INTEGER, label_text
from exporter.stores.postgres.client import PostgresReader, Row, own_json, raw_text, sendable
from exporter.stores.postgres.errors import InvalidReply, PostgresRefused, TooSlow
from exporter.stores.postgres.large_counts import FINISHED, LargeCounts, Place
from exporter.stores.postgres.schema import Schema
from exporter.stores.postgres.standby import Standby
from exporter.stores.postgres.statements import load_statement

Found = TypeVar("Found")

COUNTS, FINISHED_COUNTS, EDGES = map(
    load_statement, ("counts.sql", "finished_counts.sql", "edges.sql")
)

# Queues that one statement reads. If a statement takes too long, its queues are split between two
# statements, and so on, at most MAX_HALVINGS times: PostgreSQL may be busy for a moment, or a queue
# may be very large.
QUEUE_BATCH_SIZE = 200
MAX_HALVINGS = 3
# Jobs of one state of a queue that each poll counts at most.
FRESH_JOBS = 1000
# Schedulers of a queue that are counted at most.
MAX_SCHEDULERS = 100_000
# Characters of a text in `meta` that are read: a version, or a number.
MAX_META_LENGTH = 100
# The oldest active job is searched for among this many, whose locks expire first.
ACTIVE_JOBS = 1000

# Why a count is absent.
TOO_MANY = "too many jobs to be counted in the time for it"

# The states of unfinished jobs, in the order in which counts.sql returns them.
UNFINISHED = (State.ACTIVE, State.DELAYED, State.WAITING, State.PRIORITIZED, State.WAITING_CHILDREN)

# A request reads one queue, so it counts more jobs of each state, and finished jobs too.
REQUESTED_JOBS = 100_000


class Counted(NamedTuple):
    """What counts.sql and finished_counts.sql return for one queue."""

    meta: Mapping[str, Any]
    by_state: Mapping[State, int]  # WAITING also stands for PAUSED
    uncounted: frozenset[State]  # states that have more jobs, or may have more
    schedulers: int
    last_event: object  # the oid of the table of jobs, and the event's id
    has_jobs: bool
    has_meta: bool
    limiter: Any  # jobs that the rate limiter has counted, and when they expire (ms)

    @classmethod
    def of(cls, row: Row, limit: int, finished: Row | None = None) -> Counted:
        """Jobs of each state were counted up to `limit` + 1; finished jobs may not have been
        counted.
        """
        _, has_meta, meta, *numbers, schedulers, last_event, has_jobs, limiter = row
        by_state = dict(zip(UNFINISHED, numbers, strict=True))
        by_state |= zip(FINISHED, finished[1:] if finished else (0, 0), strict=True)
        uncounted = {state for state, number in by_state.items() if number > limit}
        if has_jobs and not finished:
            uncounted.update(FINISHED)
        return cls(
            meta=own_json(meta) or {},
            by_state=by_state,
            uncounted=frozenset(uncounted),
            schedulers=schedulers,
            last_event=last_event,
            has_jobs=has_jobs,
            has_meta=has_meta,
            limiter=own_json(limiter),
        )

    @property
    def exists(self) -> bool:
        return self.has_meta or self.has_jobs or self.schedulers > 0

    @property
    def has_edges(self) -> bool:
        unfinished = (number for state, number in self.by_state.items() if state not in FINISHED)
        return self.schedulers > 0 or any(unfinished)

    @property
    def paused(self) -> bool:
        return bool(self.meta.get("paused") == "1")


class Edges(NamedTuple):
    """What edges.sql returns for one queue. Times are epoch milliseconds."""

    oldest_waiting: int | None = None
    oldest_active: Any = None  # when it started, and whether a worker holds its lock
    next_delayed: int | None = None
    oldest_waiting_children: int | None = None
    runs: Any = None  # names of schedulers, and when they run next


class Poller:
    """Reads queues."""

    def __init__(
        self,
        reader: PostgresReader,
        schema: Schema,
        counts: LargeCounts,
        *,
        max_schedulers: int,
        request_priority: RequestPriority | None = None,
        counts_large: bool = True,
    ) -> None:
        """Without `counts_large`, large counts are not made: the last known ones are used."""
        self._reader, self._schema, self._counts = reader, schema, counts
        self._counts_large = counts_large
        self._max_schedulers = max_schedulers
        self._request_priority = request_priority or RequestPriority()
        self._existing: frozenset[Queue] = frozenset()
        self._standby = Standby(reader)

    async def poll(
        self, queues: Sequence[Queue], *, configured: frozenset[Queue]
    ) -> tuple[QueueReading, ...]:
        """A reading of each queue that exists or is configured. Raises PostgresUnavailable."""
        await self._schema.check()
        if self._schema.is_in_standby:
            await self._standby.check()
        try:
            return await self._poll(queues, configured)
        except (PostgresRefused, InvalidReply):
            # If the schema has changed since, its check explains more than the statement that
            # failed.
            self._schema.forget()
            await self._schema.check()
            raise

    async def _poll(
        self, queues: Sequence[Queue], configured: frozenset[Queue]
    ) -> tuple[QueueReading, ...]:
        counted: dict[Queue, Counted] = {}
        edges: dict[Queue, Edges] = {}
        if not queues:
            # A poll without queues still shows whether PostgreSQL answers.
            await self._read_counts(())
        for batch in batched(queues, QUEUE_BATCH_SIZE):
            await self._request_priority.yield_to_requests()
            found = await _in_parts(batch, self._read_counts)
            counted |= {
                queue: each for queue, each in found.items() if each.exists or queue in configured
            }
            with_edges = [queue for queue in batch if queue in counted and counted[queue].has_edges]
            edges |= await _in_parts(with_edges, partial(self._read_edges, counted))
        self._existing = frozenset(queue for queue, each in counted.items() if each.exists)
        if self._counts_large:
            await self._counts.refresh(_large(counted))
        await self._request_priority.yield_to_requests()
        return tuple(
            self._reading(queue, each, edges.get(queue, Edges())) for queue, each in counted.items()
        )

    async def poll_one(self, queue: Queue) -> QueueReading:
        """A reading of one queue, even if it does not exist. Raises PostgresUnavailable."""
        counted = await read_all_counts(self._reader, queue)
        edges = await self._read_edges({queue: counted}, [queue])
        return self._reading(queue, counted, edges[queue])

    def exists(self, queue: Queue) -> bool:
        """Whether the queue existed at the last poll."""
        return queue in self._existing

    def forget_all(self) -> None:
        """Forget all earlier replies."""
        self._schema.forget()
        self._counts.forget()

    async def _read_counts(self, queues: Sequence[Queue]) -> dict[Queue, Counted]:
        """Returns what each poll counts, in the order of the queues."""
        known = [any(self._counts.known((queue, state)) for state in FINISHED) for queue in queues]
        rows = await self._reader.read(COUNTS, **count_values(queues, FRESH_JOBS, known))
        by_place = {row[0]: row for row in rows}
        return {queue: Counted.of(by_place[at], FRESH_JOBS) for at, queue in enumerate(queues)}

    async def _read_edges(
        self, counted: Mapping[Queue, Counted], queues: Sequence[Queue]
    ) -> dict[Queue, Edges]:
        rows = await self._reader.read(
            EDGES,
            at=[*range(len(queues))],
            names=[sendable(queue.raw_name) for queue in queues],
            prioritized=[counted[queue].by_state[State.PRIORITIZED] > 0 for queue in queues],
            now=int(1000 * time.time()),
            active=ACTIVE_JOBS,
            schedulers=self._max_schedulers,
        )
        return {
            queues[at]: Edges(waiting, own_json(active), delayed, parents, own_json(runs))
            for at, waiting, active, delayed, parents, runs in rows
        }

    def _reading(self, queue: Queue, counted: Counted, edges: Edges) -> QueueReading:
        counts = counts_of(queue, counted, self._counts)
        unreadable = [(str(state), TOO_MANY) for state in State if state not in counts]
        version = counted.meta.get("version")
        taken, held = edges.oldest_active or (None, None)
        runs = {
            label_text(raw_text(name)): seconds
            for name, at in edges.runs or ()
            if (seconds := _seconds(at)) is not None
        }
        limits = _limits(counted, unreadable)
        return QueueReading(
            queue=queue,
            counts=counts,
            paused=counted.paused,
            version=None if version is None else label_text(raw_text(version)),
            # Jobs of a paused queue are not waiting for a worker.
            oldest_waiting=None if counted.paused else _seconds(edges.oldest_waiting),
            oldest_active=_seconds(taken),
            oldest_active_locked=None if taken is None else bool(held),
            next_delayed=_seconds(edges.next_delayed),
            schedulers=counted.schedulers if counted.schedulers < MAX_SCHEDULERS else None,
            scheduler_runs=tuple(runs.items()),
            limits=limits,
            oldest_waiting_children=_seconds(edges.oldest_waiting_children),
            unreadable=tuple(unreadable),
        )


async def _in_parts(
    queues: Sequence[Queue],
    read: Callable[[Sequence[Queue]], Awaitable[dict[Queue, Found]]],
    halvings: int = MAX_HALVINGS,
) -> dict[Queue, Found]:
    """Returns what `read` returns for these queues, read in halves if it takes too long."""
    if not queues:
        return {}
    try:
        return await read(queues)
    except TooSlow:
        if not halvings:
            raise
    half = len(queues) // 2
    first, second = queues[:half], queues[half:]
    return await _in_parts(first, read, halvings - 1) | await _in_parts(second, read, halvings - 1)


async def read_all_counts(reader: PostgresReader, queue: Queue) -> Counted:
    """Returns what a request counts. Raises PostgresUnavailable."""
    [row], [finished] = await reader.read_together(ALL_COUNTS, **all_count_values(queue))
    return Counted.of(row, REQUESTED_JOBS, finished)


ALL_COUNTS = (COUNTS, FINISHED_COUNTS)


def all_count_values(queue: Queue) -> dict[str, Any]:
    """Returns the values for ALL_COUNTS."""
    # The additional job shows that there are more.
    return {"finished": REQUESTED_JOBS + 1, **count_values([queue], REQUESTED_JOBS, [False])}


def count_values(queues: Sequence[Queue], limit: int, known: Sequence[bool]) -> dict[str, Any]:
    """Returns the values for counts.sql."""
    return {
        "at": [*range(len(queues))],
        "names": [sendable(queue.raw_name) for queue in queues],
        "known": [*known],
        "length": MAX_META_LENGTH,
        "more": limit + 1,
        "schedulers": MAX_SCHEDULERS,
    }


def counts_of(queue: Queue, counted: Counted, large: LargeCounts) -> dict[State, int]:
    """Returns the number of jobs by state, without states that have too many jobs to be counted.

    In PostgreSQL the jobs of a paused queue stay `waiting`; here they are PAUSED, because no worker
    takes them.
    """
    known: dict[State, int | None] = {
        state: large.known((queue, state)) if state in counted.uncounted else number
        for state, number in counted.by_state.items()
    }
    waiting = known[State.WAITING]
    known |= {State.WAITING: 0, State.PAUSED: waiting} if counted.paused else {State.PAUSED: 0}
    return {state: number for state in State if (number := known[state]) is not None}


def _large(counted: Mapping[Queue, Counted]) -> dict[Place, object]:
    """Returns the counts that are not made at each poll, each with its queue's last event."""
    return {
        (queue, state): each.last_event
        for queue, each in counted.items()
        for state in each.uncounted
    }


def _seconds(milliseconds: Any) -> float | None:
    if not isinstance(milliseconds, int) or abs(milliseconds) > MAX_SAFE_INTEGER:
        return None
    return milliseconds / 1000


def _limits(counted: Counted, unreadable: list[tuple[str, str]]) -> QueueLimits:
    """Returns the limits that all workers share (6.7.0: rate_limit_ttl)."""

    def number(what: str, field: str) -> float | None:
        given = counted.meta.get(field)
        # Queue.setGlobalConcurrency(Infinity) sets no limit.
        if given is None or given == "Infinity":
            return None
        if not re.fullmatch(r"[0-9]{1,16}(\.[0-9]{1,16})?", given):
            unreadable.append((what, f"{given[:40]!r} is not a number"))
            return None
        return float(given)

    rate_max, duration = number("rate limit", "max"), number("rate limit duration", "duration")
    taken, expires = counted.limiter or (None, None)
    until = window_end = None
    if taken is not None and (end := _seconds(expires)) is not None and end > time.time():
        # Queue.rateLimit() sets the number to MAX_SAFE_INTEGER (set_rate_limit): no limit is
        # higher.
        if taken >= (MAX_SAFE_INTEGER if rate_max is None else min(rate_max, MAX_SAFE_INTEGER)):
            until = end
        elif rate_max is None:
            window_end = end
    return QueueLimits(
        concurrency=number("concurrency limit", "concurrency"),
        rate_max=rate_max,
        rate_duration=None if duration is None else duration / 1000,
        rate_limited_until=until,
        rate_window_end=window_end,
    )
