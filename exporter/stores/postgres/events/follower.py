"""Follows the events of all queues in PostgreSQL, and maintains their counters."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import NamedTuple, Unpack

from exporter.concurrency.batches import batched
from exporter.queues.event_log import BEGIN, TINY_MAX_LEN, milliseconds, order
from exporter.queues.queue import Queue
from exporter.queues.queue_event_counter import QueueEventCounter
from exporter.settings import EventsSettings
from exporter.stores.events.event_follower import EventFollower, Surroundings
from exporter.stores.events.stale_jobs import Candidate, StaleJobs, forget_stale
from exporter.stores.postgres.client import PostgresReader, Row, raw_text, sendable
from exporter.stores.postgres.errors import PostgresRefused, Unsupported
from exporter.stores.postgres.events import job_facts
from exporter.stores.postgres.events.commit_horizon import CommitHorizon
from exporter.stores.postgres.events.event_reads import EventReads, Unread, Wanted
from exporter.stores.postgres.statements import load_statement

log = logging.getLogger(__name__)

WRITERS, LOG, TIMELINE, EDGES, EXISTING = map(
    load_statement,
    ("event_writers.sql", "event_log.sql", "timeline.sql", "event_edges.sql", "existing.sql"),
)

# Queues that one statement reads.
QUEUE_BATCH_SIZE = 200

# Seconds between two rounds of all queues, and after a round with at least BUSY_EVENTS events: by
# default BullMQ keeps 10,000. The interval is longer if a round takes more than a twentieth of it,
# up to the maximum.
ROUND_INTERVAL_SECONDS = 2.0
BUSY_INTERVAL_SECONDS = 0.5
BUSY_EVENTS = 500
MAX_ROUND_INTERVAL_SECONDS = 5.0
PACE = 19.0
# Seconds of a round in which queues with more unread events are read further.
CATCH_UP_SECONDS = 1.0
# Seconds between two steps until the queues are known.
PAUSE = 0.1

# Seconds between two reads of the edges of all queues, which show whether ids went backwards.
EDGES_INTERVAL_SECONDS = 60.0

# The follower stops waiting for a transaction that may have written events once other transactions
# have taken this many ids. By default BullMQ keeps events up to 10,000 ids behind the newest: older
# ones would be gone.
MAX_OPEN_IDS = 20_000

# How many ids behind the newest one of a queue BullMQ keeps events, unless `meta` says otherwise.
KEPT_IDS = 10_000

# Seconds after which a gap of a queue is logged again.
GAP_TTL_SECONDS = 600.0


class Edges(NamedTuple):
    """The ids of a queue's first and last event, and how many ids behind the last one are kept."""

    first: int | None
    last: int | None
    kept: int | None  # None if all are kept

    @classmethod
    def of(cls, row: Row) -> Edges:
        _, first, last, kept = row
        number = int(kept) if kept is not None and kept.isdecimal() else KEPT_IDS
        return cls(first, last, number or None)


class Follower(EventFollower):
    """Counts what happens to jobs, from the table of events."""

    def __init__(
        self,
        reader: PostgresReader,
        settings: EventsSettings,
        queues: Callable[[], tuple[Queue, ...] | None],
        **around: Unpack[Surroundings],
    ) -> None:
        super().__init__(settings, queues, partial(job_facts.ask, reader), **around)
        self._reader, self._reads = reader, EventReads(reader)
        self._horizon = CommitHorizon()
        self._stale_jobs = StaleJobs()
        self._newest = 0  # the highest id that was read
        # The last id read of queues that have more to read.
        self._behind: dict[Queue, int] = {}
        self._unread: set[Queue] = set()  # not read completely since they were opened
        self._edges: dict[Queue, Edges] = {}
        self._edges_due = 0.0  # monotonic
        self._is_checked = False  # whether the log was compared with the one read before
        self._table = 0
        self._latest: dict[Queue, int] = {}  # when the newest event was written (ms), until noted
        # When a gap of a queue was last found (monotonic), so that only the first of many is
        # logged.
        self._gaps: dict[Queue, float] = {}
        # Queues whose events were missed because they keep too few.
        self._scarce: set[QueueEventCounter] = set()

    def _understanding(self) -> AbstractContextManager[None]:
        return self._reader.understanding()

    def _begin_anew(self) -> None:
        """Reset after a failed round, because the server may be another one."""
        self._horizon.note_failed()
        self._is_checked = False
        self._edges_due = 0.0

    # One round

    async def _step(self) -> float:
        """Read the new events of all queues once; returns how many seconds to wait afterwards."""
        began, before = time.monotonic(), self._counts.events_read
        await self._resolve()
        await self._look()
        if await self._keep_up_with_queues() is False:
            return PAUSE
        counters = tuple(self._counters.values())
        await self._check_edges(counters)
        asked = self._stale_jobs.take_batch(counters)
        # This comes before the events are read: all events of a job that is gone by now are
        # written.
        exist = await self._existing(asked)
        # Parsed once, because the round changes them only at its end. Those of 1,000 queues take
        # 0.7 ms.
        positions = [order(counter.cursor.position) for counter in counters]
        for batch in batched(zip(counters, positions, strict=True), QUEUE_BATCH_SIZE):
            starts = [self._start(counter, complete) for counter, (_, complete) in batch]
            await self._read([counter for counter, _ in batch], starts)
        async with self._counts.consistent:
            self._note_complete(counters, positions)
        while self._behind and time.monotonic() < began + CATCH_UP_SECONDS:
            behind = [self._counters[queue] for queue in self._behind][:QUEUE_BATCH_SIZE]
            await self._read(behind, [self._behind[counter.queue] for counter in behind])
        forget_stale(asked, exist, self._behind)
        self._counts.lag = self._lag()
        self._counts.is_current = True
        if self._behind:
            return 0.0
        is_busy = self._counts.events_read - before >= BUSY_EVENTS
        interval = BUSY_INTERVAL_SECONDS if is_busy else ROUND_INTERVAL_SECONDS
        took = time.monotonic() - began
        return min(max(interval, PACE * took), MAX_ROUND_INTERVAL_SECONDS)

    def _lag(self) -> float:
        """Seconds since the last event that was read, for the queue that is furthest behind."""
        now = self._counts.now()
        return max((now - self._latest.get(queue, now) for queue in self._behind), default=0) / 1000

    async def _look(self) -> None:
        """Note which transactions may have written events that are not visible yet. Raises
        PostgresUnavailable.
        """
        [(is_standby, table, now, writers)] = await self._reader.read(WRITERS)
        if is_standby:
            raise PostgresRefused(
                f"PostgreSQL at {self._reader.settings.address} is a standby, which does not know "
                "what is still to be committed: counters of jobs are absent; connect to the primary"
            )
        self._counts.clock.note_event(now)
        if not self._is_checked or table != self._table:
            [(tables,)] = await self._reader.read(LOG)
            await self._note_log(tables, await self._timeline())
            self._is_checked, self._table = True, table
        self._horizon.look(writers, self._newest)
        if self._horizon.give_up(self._newest - MAX_OPEN_IDS):
            self._counts.uncertain_gaps += 1
            log.warning(
                "a transaction that writes events is open for very long: what it has written may "
                "not be counted"
            )

    async def _timeline(self) -> str:
        """Returns the timeline of the server; empty if the server does not show one."""
        try:
            [(timeline,)] = await self._reader.read(TIMELINE)
        except Unsupported:
            return ""  # Amazon Aurora, unless its wal_level is `logical`
        return str(timeline)

    async def _note_log(self, tables: str, timeline: str) -> None:
        known = self._counts.log_identity
        known_timeline, _, known_tables = (known or "").partition("/")
        timeline = timeline or known_timeline
        is_promoted = bool(known_timeline) and timeline != known_timeline
        if known is not None and (is_promoted or tables != known_tables):
            log.warning(
                "the events are those of another server, a promoted or restored one, or of new "
                "tables: those written since the last one that was read are counted"
            )
            await self._restart()
        self._counts.log_identity = f"{timeline}/{tables}"

    async def _restart(self) -> None:
        """Start again, because the ids of events now belong to another log."""
        async with self._counts.consistent:
            for queue, latest in self._latest.items():
                cursor = self._counters[queue].cursor
                at, complete = order(cursor.position)
                cursor.position = b"%d-%d" % (max(at, latest), complete)
            self._counts.restart()
            self._horizon = CommitHorizon()
            self._newest = 0
            self._behind.clear()
            self._latest.clear()
            self._unread = set(self._counters)

    async def _keep_up_with_queues(self) -> bool:
        """Follow new queues and stop following removed ones; returns False until the queues are
        known.
        """
        change = self._counts.find_change()
        if change is None:
            return self._counts.has_begun
        edges = await self._read_edges(change.new)
        opened = [self._counts.open(queue) for queue in change.new]
        for counter in opened if self._counts.begins_now else ():
            # Events that were written before the exporter first started are not counted.
            now, last = self._counts.now(), edges[counter.queue].last
            if last is not None:
                counter.cursor.position, counter.cursor.number = b"%d-%d" % (now, last), last
            counter.start(now)
        for counter in opened:
            self._newest = max(self._newest, counter.cursor.number or 0)
        for gone in change.gone:
            self._behind.pop(gone.queue, None)
            self._unread.discard(gone.queue)
            self._edges.pop(gone.queue, None)
            self._latest.pop(gone.queue, None)
            self._gaps.pop(gone.queue, None)
            self._scarce.discard(gone)
            self._ahead.discard(gone)
        self._unread.update(change.new)
        self._edges |= edges
        self._counts.apply(change, opened)
        return True

    async def _existing(self, asked: Sequence[Candidate]) -> list[bool]:
        by_queue: dict[Queue, list[bytes]] = {}
        for each in asked:
            by_queue.setdefault(each.counter.queue, []).append(each.job_id)
        found: set[tuple[Queue, bytes]] = set()
        for queue, job_ids in by_queue.items():
            texts = [text for text in map(sendable, job_ids) if text is not None]
            rows = await self._reader.read(EXISTING, queue=sendable(queue.raw_name), ids=texts)
            found.update((queue, raw_text(job_id)) for (job_id,) in rows)
        return [(each.counter.queue, each.job_id) in found for each in asked]

    # Reading

    def _start(self, counter: QueueEventCounter, complete: int) -> int:
        """Returns the id after which a round reads a queue that was read completely up to
        `complete`. Events that were already read are not read again.
        """
        if self._horizon.again or counter.queue in self._unread:
            return complete
        recent = self._horizon.recent
        return max(complete, min(recent, self._behind.get(counter.queue, recent)))

    async def _read(self, counters: Sequence[QueueEventCounter], starts: Sequence[int]) -> None:
        """Read and count the new events of these queues, each after its start id."""
        await self._request_priority.yield_to_requests()
        found = await self._reads.read(
            [
                Wanted(counter.queue, start, counter.cursor.ahead)
                for counter, start in zip(counters, starts, strict=True)
            ]
        )
        # If a round starts before the last event that was read, the events in between were read
        # already, unless their transactions were still open.
        read = [
            max(start, counter.cursor.number or 0)
            for counter, start in zip(counters, starts, strict=True)
        ]
        suspects = [
            counter.queue
            for counter, last in zip(counters, read, strict=True)
            if self._may_be_trimmed(counter, last, found[counter.queue].ids)
        ]
        edges = await self._read_edges(suspects)
        self._edges |= edges
        self._note_enough_kept()
        await self._request_priority.yield_to_requests()
        async with self._counts.consistent:
            for counter, start, last in zip(counters, starts, read, strict=True):
                unread = found[counter.queue]
                first = edges[counter.queue].first if counter.queue in edges else None
                is_gap = first is not None and first > last
                if is_gap or self._began_unseen(counter, unread):
                    self._note_gap(counter)
                elif self._may_be_trimmed(counter, start, unread.ids):
                    self._counts.uncertain_gaps += 1
                if unread.ids:
                    self._count(counter, unread)
                if unread.is_whole:
                    self._behind.pop(counter.queue, None)
                else:
                    self._behind[counter.queue] = unread.ids[-1]
            self._note_caught_up(each for each in counters if each.queue not in self._behind)
            await self._resolve()

    def _count(self, counter: QueueEventCounter, unread: Unread) -> None:
        queue, cursor = counter.queue, counter.cursor
        since = self._counted_until(counter)
        entries = [entry for entry in unread.entries if milliseconds(entry[0]) > since]
        try:
            if unread.skipped:
                log.warning("an event cannot be read: skipped", extra={"queue": queue.name})
                counter.pass_over(entries)
            else:
                counter.read(entries)
        except Exception:
            # If they were read again, they would be counted twice and fail again.
            log.exception("events passed over", extra={"queue": queue.name})
            counter.pass_over(entries)
        self._counts.events_read += len(entries)
        cursor.ahead |= {*unread.ids}
        cursor.number = max(cursor.number or 0, unread.ids[-1])
        self._newest = max(self._newest, cursor.number)
        latest = max((milliseconds(entry_id) for entry_id, _ in entries), default=0)
        self._latest[queue] = max(self._latest.get(queue, 0), latest)
        if counter.cleaned:
            counter.cleaned = False
            self._stale_jobs.check_soon(counter)
        self._resolver.note(counter)

    def _counted_until(self, counter: QueueEventCounter) -> int:
        """Returns up to which time (ms) events of a queue are not counted if their ids do not show
        it, because the queue was not watched then or the log was another one; otherwise -1.
        """
        at, complete = order(counter.cursor.position)
        return at if complete == 0 and counter.cursor.position != BEGIN else -1

    def _note_complete(
        self, counters: Sequence[QueueEventCounter], positions: Sequence[tuple[int, int]]
    ) -> None:
        """After a round of all queues from these positions, note up to which id everything was
        read, and which events after it were read.
        """
        for counter, (at, before) in zip(counters, positions, strict=True):
            queue, cursor = counter.queue, counter.cursor
            complete = self._horizon.complete
            if (last := self._behind.get(queue)) is not None:
                if self._counted_until(counter) >= 0:
                    continue  # the time matters until all is read
                complete = min(complete, last)
            else:
                self._unread.discard(queue)
            if queue in self._latest:
                counter.note_check()
            if complete > before or (before and queue in self._latest):
                latest = max(at, self._latest.pop(queue, 0))
                cursor.position = b"%d-%d" % (latest, max(before, complete))
                if cursor.ahead:
                    cursor.ahead = frozenset(each for each in cursor.ahead if each > complete)
        self._horizon.note_done()

    # Edges

    async def _check_edges(self, counters: Sequence[QueueEventCounter]) -> None:
        """Check from time to time whether ids went backwards, and how many events a queue keeps."""
        if time.monotonic() < self._edges_due:
            return
        self._edges = await self._read_edges([counter.queue for counter in counters])
        self._edges_due = time.monotonic() + EDGES_INTERVAL_SECONDS
        self._note_enough_kept()
        for counter in counters:
            counter.note_check()
            last = self._edges[counter.queue].last
            if last is not None and last < (counter.cursor.number or 0):
                log.warning(
                    "the ids of events went back: those written since the last one that was read "
                    "are counted",
                    extra={"queue": counter.queue.name},
                )
                await self._restart()
                return

    async def _read_edges(self, queues: Sequence[Queue]) -> dict[Queue, Edges]:
        edges: dict[Queue, Edges] = {}
        for batch in batched(queues, QUEUE_BATCH_SIZE):
            await self._request_priority.yield_to_requests()
            rows = await self._reader.read(
                EDGES,
                at=[*range(len(batch))],
                names=[sendable(queue.raw_name) for queue in batch],
            )
            edges |= {batch[row[0]]: Edges.of(row) for row in rows}
        return edges

    def _may_be_trimmed(self, counter: QueueEventCounter, read: int, new: Sequence[int]) -> bool:
        """Whether events after the id up to which all were read may have been deleted already.

        BullMQ deletes events whose ids are too far behind that of a new event (publish_event); the
        ids of all queues come from one sequence.
        """
        edges = self._edges.get(counter.queue)
        kept = edges.kept if edges else KEPT_IDS
        return bool(new and read) and kept is not None and new[-1] - kept > read

    def _began_unseen(self, counter: QueueEventCounter, unread: Unread) -> bool:
        """Whether a queue that is read for the first time had events that are deleted already.

        In that case the remaining events go back as far as BullMQ keeps them, and do not begin with
        the first job. (If the application chooses the ids of jobs, they do not show which job was
        the first.)
        """
        edges, ids = self._edges.get(counter.queue), unread.ids
        is_new = counter.cursor.position == BEGIN and not counter.cursor.number
        if not is_new or not ids or edges is None or edges.kept is None or edges.last is None:
            return False
        spacing = (ids[-1] - ids[0]) // len(ids)
        if edges.last - ids[0] < edges.kept - 3 * spacing:
            return False
        _, fields = unread.entries[0]
        is_added = fields[1] == b"added" and len(fields) > 3
        return not (is_added and (fields[3] == b"1" or not fields[3].isdigit()))

    def _keeps_too_few(self, counter: QueueEventCounter) -> bool:
        """Whether a queue keeps too few events for all of them to be read; see TINY_MAX_LEN.

        BullMQ deletes events at every 256th id (6.7.0: publish_event), so there may be more than
        the limit. With a limit of 0 it deletes none.
        """
        edges = self._edges.get(counter.queue)
        return edges is not None and edges.kept is not None and edges.kept <= TINY_MAX_LEN

    def _note_enough_kept(self) -> None:
        """Note which queues keep enough events again."""
        for counter in [each for each in self._scarce if not self._keeps_too_few(each)]:
            self._scarce.remove(counter)
            counter.note_events_off(False)
            log.info("the queue keeps enough events again", extra={"queue": counter.queue.name})

    def _note_gap(self, counter: QueueEventCounter) -> None:
        """Note that events were deleted before they were read: at least one. The ids do not show
        how many.
        """
        counter.note_missed(1)
        self._counts.uncertain_gaps += 1
        if self._keeps_too_few(counter):
            if counter not in self._scarce:
                self._scarce.add(counter)
                counter.note_events_off(True)
                log.warning(
                    "the queue keeps too few events to be read; set streams.events.maxLen of its "
                    "Queue to 10000",
                    extra={
                        "queue": counter.queue.name,
                        "max_len": self._edges[counter.queue].kept,
                    },
                )
            return
        now, queue = time.monotonic(), counter.queue
        before, self._gaps[queue] = self._gaps.get(queue), now
        if before is None or now > before + GAP_TTL_SECONDS:
            log.warning(
                "events were missed", extra={"queue": queue.name, "count": 1, "at_least": True}
            )
