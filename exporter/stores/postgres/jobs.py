"""Reads a page of a queue's jobs in two round trips, or all of them in batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, NamedTuple

from psycopg import sql

from exporter.queues.jobs import UNBOUNDED, Job, Page, ReadLimits, too_large
from exporter.queues.json_values import parse_json
from exporter.queues.queue import Queue, State
from exporter.queues.text import text
from exporter.stores.postgres.client import PostgresReader, Row, raw_text, sendable, shown_text
from exporter.stores.postgres.large_counts import LargeCounts
from exporter.stores.postgres.poll import (
    ALL_COUNTS,
    REQUESTED_JOBS,
    Counted,
    all_count_values,
    counts_of,
    read_all_counts,
)
from exporter.stores.postgres.statements import load_statement

PAGE, JOBS, SIZES = map(load_statement, ("page.sql", "jobs.sql", "sizes.sql"))

# Characters of a job's name that are read.
MAX_NAME_LENGTH = 65_536

# All jobs of a state are read in batches of this size, up to this number of jobs. Open Archiver
# keeps 5,000 failed jobs; elsewhere there may be millions.
SCAN_BATCH_SIZE = 100
MAX_SCANNED_JOBS = 20_000
# A batch of more bytes is cut short: parsing and searching it would block the exporter, not
# PostgreSQL.
SCAN_BATCH_BYTES = 512 << 10

# Whether a queue is paused. In PostgreSQL, jobs of a paused queue stay `waiting`, and prioritized
# jobs are `waiting` with a priority.
_PAUSED = """
EXISTS (SELECT FROM meta WHERE meta.queue = %(queue)s AND field = 'paused' AND value = '1')
"""


class _Order(NamedTuple):
    """The condition for jobs of a state, and what BullMQ orders by before `seq` (get_range)."""

    condition: sql.SQL
    key: sql.SQL


# Workers take jobs with a negative priority first. BullMQ accepts such jobs but omits them from all
# of its lists and counts (6.7.0: get_counts, get_range); Job.getState() returns `waiting`.
_NOT_PRIORITIZED = "state = 'waiting' AND priority <= 0"
_NO_KEY, _PRIORITY, _FINISHED_AT = map(sql.SQL, ("0::bigint", "priority", "finished_at_ms"))
_ORDERS = {
    State.ACTIVE: _Order(sql.SQL("state = 'active'"), _NO_KEY),
    State.COMPLETED: _Order(sql.SQL("state = 'completed'"), _FINISHED_AT),
    State.FAILED: _Order(sql.SQL("state = 'failed'"), _FINISHED_AT),
    State.DELAYED: _Order(sql.SQL("state = 'delayed'"), sql.SQL("process_at_ms")),
    State.WAITING: _Order(sql.SQL(f"{_NOT_PRIORITIZED} AND NOT {_PAUSED}"), _PRIORITY),
    State.PAUSED: _Order(sql.SQL(f"{_NOT_PRIORITIZED} AND {_PAUSED}"), _PRIORITY),
    State.PRIORITIZED: _Order(sql.SQL("state = 'waiting' AND priority > 0"), _PRIORITY),
    State.WAITING_CHILDREN: _Order(sql.SQL("state = 'waiting-children'"), _NO_KEY),
}
_ALL = sql.SQL("true")


def _page(state: State, *, newest_first: bool, beyond: sql.Composable = _ALL) -> sql.Composable:
    order = _ORDERS[state]
    return PAGE.format(
        condition=order.condition,
        key=order.key,
        beyond=beyond,
        direction=sql.SQL("DESC" if newest_first else "ASC"),
    )


class _Listed(NamedTuple):
    """A job of a page: its position, and the lengths of its UNBOUNDED fields (bytes)."""

    id: str
    key: int | None  # None if the row has no time, although BullMQ always writes one
    seq: int
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, row: Row) -> _Listed:
        job_id, key, seq, *sizes = row
        return cls(job_id, key, seq, tuple(sizes))


async def read_page(
    reader: PostgresReader,
    queue: Queue,
    state: State,
    *,
    start: int,
    limit: int,
    newest_first: bool,
    limits: ReadLimits,
    large_counts: LargeCounts,
    without: Sequence[str] = (),
) -> Page:
    """Returns at most `limit` jobs from index `start` on, oldest first or newest first.

    The fields in `without` are not read. A job that is removed between the two round trips is
    omitted. Raises PostgresUnavailable.
    """
    rows, [count_row], [finished_row] = await reader.read_together(
        [_page(state, newest_first=newest_first), *ALL_COUNTS],
        queue=sendable(queue.raw_name),
        start=start,
        limit=limit,
        **all_count_values(queue),
    )
    listed = [_Listed.of(row) for row in rows]
    counted = Counted.of(count_row, REQUESTED_JOBS, finished_row)
    jobs = await _read(reader, queue, state, listed, limits=limits, without=without)
    return Page(
        has_meta=counted.exists,
        has_schedulers=counted.schedulers > 0,
        counts=counts_of(queue, counted, large_counts),
        jobs=jobs,
        ids=tuple(raw_text(each.id) for each in listed),
        ended=len(listed) < limit,
    )


async def read_jobs(
    reader: PostgresReader,
    queue: Queue,
    state: State,
    ids: Sequence[bytes],
    *,
    limits: ReadLimits,
    without: Sequence[str],
) -> tuple[Job, ...]:
    """Returns those of these jobs that still exist. Raises PostgresUnavailable."""
    texts = [each for each in map(sendable, ids) if each is not None]
    if not texts:
        return ()
    rows = await reader.read(SIZES, queue=sendable(queue.raw_name), ids=texts)
    listed = [_Listed.of(row) for row in rows]
    return await _read(reader, queue, state, listed, limits=limits, without=without)


async def _read(
    reader: PostgresReader,
    queue: Queue,
    state: State,
    listed: Sequence[_Listed],
    *,
    limits: ReadLimits,
    without: Sequence[str],
) -> tuple[Job, ...]:
    if not listed:
        return ()
    left_out = too_large([each.sizes for each in listed], UNBOUNDED, limits)
    shown = {each.id: large for each, large in zip(listed, left_out, strict=True)}
    rows = await reader.read(
        JOBS,
        queue=sendable(queue.raw_name),
        length=MAX_NAME_LENGTH,
        ids=[each.id for each in listed],
        **{
            field: [field in without or field in large for large in left_out] for field in UNBOUNDED
        },
    )
    jobs = []
    for job_id, name, added, processed, finished, attempts, *fields in rows:
        await asyncio.sleep(0)  # let requests be served
        unbounded = dict(zip(UNBOUNDED, fields, strict=True))
        unbounded |= {field: note for field, note in shown[job_id].items() if field not in without}
        jobs.append(
            job_of(
                job_id,
                state,
                name=name,
                times=(added, processed, finished),
                attempts_made=attempts,
                fields=unbounded,
            )
        )
    return tuple(jobs)


def job_of(
    job_id: str,
    state: State | None,
    *,
    name: str,
    times: tuple[int | None, int | None, int | None],
    attempts_made: int,
    fields: Mapping[str, Any],
) -> Job:
    """Builds a job from its row; `times` are when it was added, started and finished (epoch ms)."""
    added, processed, finished = times
    reason = fields["failedReason"] or b""
    traces = parse_json(fields["stacktrace"] or b"[]")
    data = fields["data"]
    return Job(
        id=shown_text(job_id),
        raw_id=raw_text(job_id),
        name=shown_text(name),
        data={} if data is None else parse_json(data),
        state=state,
        # BullMQ treats an empty reason as none.
        failed_reason=text(reason if isinstance(reason, bytes) else raw_text(reason)) or None,
        timestamp=added,
        processed_on=processed,
        finished_on=finished,
        attempts_made=attempts_made,
        stacktrace=traces if isinstance(traces, list) else [traces],
        return_value=parse_json(fields["returnvalue"]),
    )


class Scan:
    """Reads all jobs of one state, newest or oldest first, up to a time limit and a maximum number.

    Each batch begins after the last job of the previous batch, by the value that jobs are ordered
    by. So no job is read twice, and no job that keeps its position is skipped.
    """

    def __init__(
        self,
        reader: PostgresReader,
        queue: Queue,
        state: State,
        *,
        newest_first: bool,
        limits: ReadLimits,
        large_counts: LargeCounts,
    ) -> None:
        self._reader, self._queue, self._state = reader, queue, state
        self._newest_first, self._limits = newest_first, limits
        self._large_counts = large_counts
        self.counts: Mapping[State, int] = {}  # of the queue, when the scan began
        self.seen = 0
        self.complete = False  # whether every job was seen

    async def jobs(self) -> AsyncGenerator[Job, None]:
        """Yields each job once. Raises PostgresUnavailable."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.scan_seconds
        counted = await read_all_counts(self._reader, self._queue)
        self.counts = counts_of(self._queue, counted, self._large_counts)
        last: _Listed | None = None
        while self.seen < MAX_SCANNED_JOBS and loop.time() <= deadline:
            listed = await self._list_behind(last)
            fitting = _fitting(listed, self._limits)
            for job in await _read(
                self._reader, self._queue, self._state, fitting, limits=self._limits, without=()
            ):
                self.seen += 1
                yield job
            if len(listed) < SCAN_BATCH_SIZE and len(fitting) == len(listed):
                self.complete = True
                return
            last = fitting[-1]
            if last.key is None:
                return  # no job compares as being after it

    async def _list_behind(self, last: _Listed | None) -> list[_Listed]:
        beyond = _ALL
        if last is not None:
            beyond = sql.SQL("({key}, seq) {than} (%(key)s, %(seq)s)").format(  # type: ignore[assignment]
                key=_ORDERS[self._state].key,
                than=sql.SQL("<" if self._newest_first else ">"),
            )
        rows = await self._reader.read(
            _page(self._state, newest_first=self._newest_first, beyond=beyond),
            queue=sendable(self._queue.raw_name),
            start=0,
            limit=SCAN_BATCH_SIZE,
            key=None if last is None else last.key,
            seq=0 if last is None else last.seq,
        )
        return [_Listed.of(row) for row in rows]


def _fitting(listed: Sequence[_Listed], limits: ReadLimits) -> Sequence[_Listed]:
    """Returns the first jobs that together have at most SCAN_BATCH_BYTES, but at least one job."""
    left = SCAN_BATCH_BYTES
    for number, each in enumerate(listed):
        left -= sum(size for size in each.sizes if size <= limits.field_bytes)
        if left < 0 and number:
            return listed[:number]
    return listed
