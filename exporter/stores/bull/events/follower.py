"""Hears what Bull publishes about the jobs of all its queues, and maintains their counters."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple, Unpack

from exporter.concurrency.batches import batched
from exporter.queues.event_log import BEGIN, Gap, milliseconds
from exporter.queues.job_facts import number
from exporter.queues.queue import Queue, State
from exporter.queues.queue_event_counter import CLOCK_SKEW_MS, QueueEventCounter
from exporter.queues.tallies import Tallies
from exporter.queues.text import remembered_id
from exporter.settings import EventsSettings, RedisSettings
from exporter.stores.bull.events import job_facts, messages
from exporter.stores.bull.events.job_facts import read_hashes, read_job_options
from exporter.stores.bull.events.messages import Heard, split_channel, understand
from exporter.stores.bull.events.subscription import Message, Subscription, pattern_of
from exporter.stores.bull.events.translation import (
    JobHash,
    Known,
    Translator,
    needs_hash,
    needs_options,
)
from exporter.stores.bullmq.events.backfill import Backfill
from exporter.stores.events.event_follower import EventFollower, Surroundings
from exporter.stores.events.stale_jobs import Candidate, StaleJobs, forget_stale
from exporter.stores.redis.client import RedisReader, readable

log = logging.getLogger(__name__)

# Seconds between two checks for a Bull queue, while there is none.
LOOK_INTERVAL_SECONDS = 0.5
# Seconds that a step waits for messages, and that it pauses after some arrived: unless there are
# few, they are read in batches. If a job is removed during the pause, its hash can no longer be
# read.
WAIT_SECONDS = 0.5
REST_SECONDS = 0.01
# Seconds between two pings. With each ping, some tracked jobs that may be gone are looked up.
PING_INTERVAL_SECONDS = 1.0
# Messages that are counted before requests are served: 1 to 2 ms.
COUNT_BATCH_SIZE = 100
# Active jobs of a queue that are read when it is first followed. Bull keeps them in a list.
MAX_ACTIVE_JOBS = 1000
# Due times of delayed jobs that one pipeline reads, and jobs that are read for each of them.
# Further jobs are counted when they are due.
DUE_BATCH_SIZE = 10
MAX_JOBS_OF_A_TIME = 5000
# If at most this many jobs have the same due time, each is checked: it may have replaced another
# job with its id.
MAX_CHECKED_JOBS_OF_A_TIME = 100
# Queues that are remembered at most if they are heard but not followed: settings exclude them, or
# they are new.
MAX_UNKNOWN_QUEUES = 1000
# Queues whose active jobs are read by one pipeline.
QUEUES_BATCH_SIZE = 100


class _Ping(NamedTuple):
    """What is certain once a ping is answered, because every earlier message was read by then."""

    answers: int  # number of answered pings at that time
    asked: Sequence[Candidate]
    exist: Sequence[Any]
    ahead: frozenset[QueueEventCounter]


class BullFollower(EventFollower):
    """Counts what happens to the jobs of Bull's `queues`, from the messages that Bull publishes.

    Messages are not stored: while the subscription is interrupted nothing is counted, except for
    finished jobs that are kept. `unheard` of the tallies is the total duration of interruptions.
    """

    def __init__(
        self,
        redis: RedisReader,
        settings: EventsSettings,
        queues: Callable[[], tuple[Queue, ...] | None],
        *,
        redis_settings: RedisSettings,
        **around: Unpack[Surroundings],
    ) -> None:
        """`redis` reads hashes and lists; another connection is opened to listen."""
        super().__init__(settings, queues, partial(job_facts.ask, redis), **around)
        self._redis, self._queues = redis, queues
        self._searched_at = around.get("searched_at", lambda: None)
        self._subscription = Subscription(redis_settings, slot=redis.slot)
        self._stale_jobs = StaleJobs()
        self._backfill = Backfill(redis, None, self._counts.consistent)
        self._by_base: dict[bytes, QueueEventCounter] = {}
        self._since: dict[QueueEventCounter, int] = {}  # since when everything is heard (epoch ms)
        self._untracked = 0  # jobs that could not be tracked before that
        self._must_reopen = True
        self._ping: _Ping | None = None
        self._ping_due = 0.0  # monotonic
        # The jobs that were active when their queues were first read, and when they started. They
        # are tracked once every earlier message has been read: `_active_after` pings are answered
        # by then. `_moved` holds the jobs of these queues that were heard of in the meantime.
        self._active: dict[QueueEventCounter, list[tuple[bytes, int]]] = {}
        self._active_after = 0
        self._moved: dict[QueueEventCounter, set[bytes]] = {}
        self._last_at, self._sequence = 0, 0
        # When the search before the last one began, and when the last one began (epoch ms).
        self._searches: tuple[int | None, int | None] = (None, None)
        self._has_queues = False
        # The last time when there was no Bull queue, before the first one appeared (epoch ms).
        self._none_at: int | None = None
        # Queues that are heard but not followed, and since when (epoch ms).
        self._unknown: dict[bytes, int] = {}
        self._unknown_heard = asyncio.Event()

    @property
    def has_begun(self) -> bool:
        """Whether there is, or was, a Bull queue. Until then there is nothing to report."""
        return self._has_queues

    def _understanding(self) -> AbstractContextManager[None]:
        return self._redis.understanding()

    def _begin_anew(self) -> None:
        """Reopen after a failed step: messages of it may be counted in part. They count as not
        heard.
        """
        self._must_reopen = True

    async def run(self) -> None:
        """Follow until cancelled, then save. Nothing is opened until there is a Bull queue."""
        while not (queues := self._queues()):
            if queues is not None:
                # None if the settings name the queues: those are never new, only their kind was not
                # known yet.
                self._none_at = self._searched_at()
            await asyncio.sleep(LOOK_INTERVAL_SECONDS)
        self._has_queues = True
        try:
            await super().run()
        finally:
            await self._subscription.close()

    async def tallies(self) -> Tallies | None:
        """See EventCounters.tallies; also None until there is a Bull queue."""
        return await super().tallies() if self._has_queues else None

    async def sign_of_new_queue(self) -> None:
        """Wait until a queue that is not followed is heard for the first time."""
        await self._unknown_heard.wait()
        self._unknown_heard.clear()

    # One step

    async def _step(self) -> float:
        """Count the messages that have arrived; returns how many seconds to pause afterwards."""
        await self._resolve()
        if not await self._keep_up_with_queues():
            return WAIT_SECONDS
        if not self._counters:
            await self._subscription.close()
            self._must_reopen = True
            self._counts.is_current = True
            return LOOK_INTERVAL_SECONDS
        await self._keep_open()
        is_busy = self._backfill.is_running
        heard = await self._subscription.read(0.001 if is_busy else WAIT_SECONDS)
        await self._count(heard)
        await self._note_answers()
        await self._ping_if_due()
        await self._backfill.run_page(self._counters, ())
        self._counts.is_current = True
        return REST_SECONDS if heard else 0.0

    async def _keep_up_with_queues(self) -> bool:
        """Follow new queues and stop following removed ones; returns False until the queues are
        known.
        """
        if (none_at := self._none_at) is not None:
            self._counts.note_none()
            if self._counts.heard_until is None:
                self._counts.heard_until = none_at
            self._none_at = None
        searched = self._searched_at()
        if searched != self._searches[1]:
            self._searches = (self._searches[1] or none_at, searched)
        change = self._counts.find_change()
        if change is None:
            return self._counts.has_begun
        opened = self._open(change.new)
        for gone in change.gone:
            self._ahead.discard(gone)
            self._since.pop(gone, None)
        self._counts.apply(change, opened)
        self._by_base = {each.queue.base: each for each in self._counters.values()}
        self._backfill.restart(self._counters.values())
        if opened and not self._must_reopen:
            first_heard = self._first_heard(opened)
            if not self._patterns <= self._subscription.patterns:
                await self._subscription.open(self._patterns)
            await self._begin_to_hear(opened)
            if first_heard is not None:
                self._add_unheard(first_heard, _now())
        for counter in opened:
            self._unknown.pop(counter.queue.base, None)
        return True

    def _first_heard(self, opened: Sequence[QueueEventCounter]) -> int | None:
        """Returns since when messages of these new queues were not counted; None if there were
        none.

        If their prefix was already heard, this is when the first message arrived. Under another
        prefix they may have appeared as soon as the search that did not find them had begun.
        """
        before = self._searches[0]
        patterns = {pattern_of(counter.queue.prefix) for counter in opened}
        if before is None or not patterns <= self._subscription.patterns:
            return before
        if len(self._unknown) >= MAX_UNKNOWN_QUEUES:
            return before
        bases = [counter.queue.base for counter in opened]
        return min((self._unknown[base] for base in bases if base in self._unknown), default=None)

    def _open(self, queues: Iterable[Queue]) -> list[QueueEventCounter]:
        """Returns the counters of these queues, with the time from which on events are counted."""
        opened = [self._counts.open(queue) for queue in queues]
        if self._counts.begins_now:
            now = _now()
            for counter in opened:
                counter.cursor.position = b"%d-0" % now
                counter.start(now)
            self._counts.heard_until = now
        elif (before := self._searches[0]) is not None:
            # New queues did not exist yet when the search that did not find them began.
            for counter in opened:
                if counter.cursor.position == BEGIN:
                    counter.cursor.position = b"%d-0" % max(0, before - CLOCK_SKEW_MS)
        return opened

    # Listening

    @property
    def _patterns(self) -> frozenset[str]:
        return frozenset(pattern_of(queue.prefix) for queue in self._counters)

    async def _keep_open(self) -> None:
        if self._must_reopen:
            self._ping, self._active, self._moved = None, {}, {}
            await self._subscription.close()
            await self._subscription.open(self._patterns)
            await self._begin_to_hear(list(self._counters.values()))
            self._must_reopen = False

    async def _begin_to_hear(self, counters: Sequence[QueueEventCounter]) -> None:
        """Note that these queues are heard from now on, and what happened before was not."""
        now = _now()
        reopened = self._must_reopen
        active = await self._read_active(counters)
        async with self._counts.consistent:
            heard_until = self._counts.heard_until
            if reopened:
                if heard_until is not None:
                    self._add_unheard(heard_until, now)
                self._untracked = self._counts.untracked_jobs
            for counter in counters:
                since = milliseconds(counter.cursor.position)
                if reopened and heard_until is not None and counter.cursor.position != BEGIN:
                    since = max(since, heard_until)
                if since < now:
                    counter.note_gap(Gap(0, since, now))
                    self._backfill.note_gap(counter.queue)
                self._since[counter] = now
            self._counts.unheard = self._counts.unheard or 0.0
            if reopened:
                self._counts.heard_until = now
        self._active |= active
        self._moved |= {counter: set() for counter in active}
        self._active_after = self._subscription.answered + self._subscription.unanswered + 1
        self._ping_due = 0.0

    def _add_unheard(self, since: int, until: int) -> None:
        self._counts.unheard = (self._counts.unheard or 0.0) + max(0, until - since) / 1000

    async def _read_active(
        self, counters: Iterable[QueueEventCounter]
    ) -> dict[QueueEventCounter, list[tuple[bytes, int]]]:
        """Returns the active jobs and when they started: their outcomes will be heard."""
        active: dict[QueueEventCounter, list[tuple[bytes, int]]] = {}
        for batch in batched(counters, QUEUES_BATCH_SIZE):
            lists = readable(
                await self._redis.pipeline(
                    [
                        (b"LRANGE", each.queue.base + State.ACTIVE.encode(), 0, MAX_ACTIVE_JOBS - 1)
                        for each in batch
                    ]
                )
            )
            for counter, job_ids in zip(batch, lists, strict=True):
                if not isinstance(job_ids, list) or not job_ids:
                    continue
                keys = [counter.queue.job_key(job_id) for job_id in job_ids]
                started = await self._redis.pipeline(
                    [(b"HGET", key, b"processedOn") for key in keys]
                )
                # A job without this field has not started yet, and will be heard of when it does.
                active[counter] = [
                    (job_id, number(at))
                    for job_id, at in zip(job_ids, started, strict=True)
                    if isinstance(at, bytes) and number(at) > 0
                ]
        return active

    # Counting

    async def _count(self, received: Sequence[Message]) -> None:
        """Count messages. Raises RedisUnavailable before any of them is counted."""
        if not received:
            return
        heard: dict[QueueEventCounter, list[Heard]] = {}
        for message in received:
            base, kind = split_channel(message.channel)
            counter = self._by_base.get(base)
            if counter is None:
                self._note_unknown(base, kind, message)
                continue
            # If one pattern includes another, a message arrives once for each of them.
            if message.pattern != pattern_of(counter.queue.prefix).encode():
                continue
            if (understood := understand(kind, message.payload)) is not None:
                heard.setdefault(counter, []).append(understood)
        due = await self._read_due(heard)
        hashes = await self._read_hashes(heard, due)
        is_complete = self._counts.untracked_jobs == self._untracked
        await self._request_priority.yield_to_requests()
        async with self._counts.consistent:
            at = self._next_time()
            for counter, of_queue in heard.items():
                known = Known(
                    hashes.get(counter, {}),
                    due.get(counter, {}),
                    self._since[counter],
                    is_complete,
                )
                translator = Translator(counter, known)
                for batch in batched(of_queue, COUNT_BATCH_SIZE):
                    for each in batch:
                        translator.count(each, self._next_id(at))
                    await self._request_priority.yield_to_requests()
                if (moved := self._moved.get(counter)) is not None:
                    moved.update(each.job_id for each in of_queue)
                    for job_ids in due.get(counter, {}).values():
                        moved.update(job_ids)
                counter.cursor.position = self._next_id(at)
                self._counts.events_read += len(of_queue)
                self._resolver.note(counter)
            self._counts.heard_until = at
            await self._resolve()

    def _note_unknown(self, base: bytes, kind: bytes, message: Message) -> None:
        """Note a queue that is not watched: it may be a new one."""
        if base in self._unknown or len(self._unknown) >= MAX_UNKNOWN_QUEUES:
            return
        if understand(kind, message.payload) is not None:
            self._unknown[base] = _now()
            self._unknown_heard.set()

    def _next_time(self) -> int:
        """Returns the present time, but never a time before that of an earlier message."""
        return max(_now(), self._last_at)

    def _next_id(self, at: int) -> bytes:
        self._sequence = self._sequence + 1 if at == self._last_at else 0
        self._last_at = at
        return b"%d-%d" % (at, self._sequence)

    async def _read_due(
        self, heard: dict[QueueEventCounter, list[Heard]]
    ) -> dict[QueueEventCounter, dict[int, list[bytes]]]:
        """Returns the jobs that are delayed until the times given in messages."""
        times = [
            (counter, due)
            for counter, of_queue in heard.items()
            for due in dict.fromkeys(each.due for each in of_queue if each.due)
        ]
        found: dict[QueueEventCounter, dict[int, list[bytes]]] = {}
        for batch in batched(times, DUE_BATCH_SIZE):
            answers = readable(
                await self._redis.pipeline(
                    [
                        (
                            *(b"ZRANGEBYSCORE", counter.queue.base + State.DELAYED.encode()),
                            # The score holds the time, and in its last 12 bits a counter.
                            *(due << 12, (due << 12) + 4095, b"LIMIT", 0, MAX_JOBS_OF_A_TIME),
                        )
                        for counter, due in batch
                    ]
                )
            )
            for (counter, due), job_ids in zip(batch, answers, strict=True):
                if isinstance(job_ids, list):
                    found.setdefault(counter, {})[due] = job_ids
        return found

    async def _read_hashes(
        self,
        heard: dict[QueueEventCounter, list[Heard]],
        due: dict[QueueEventCounter, dict[int, list[bytes]]],
    ) -> dict[QueueEventCounter, dict[bytes, JobHash]]:
        """Returns the hashes of the jobs whose messages cannot be interpreted without them."""
        needed: dict[tuple[QueueEventCounter, bytes], bool] = {}  # and whether with the options
        for counter, of_queue in heard.items():
            for each in of_queue:
                if needs_hash(each):
                    is_failed = each.kind == messages.FAILED
                    key = (counter, each.job_id)
                    needed[key] = needed.get(key, False) or is_failed
            for job_ids in due.get(counter, {}).values():
                is_checked = len(job_ids) <= MAX_CHECKED_JOBS_OF_A_TIME
                for job_id in job_ids:
                    if is_checked or remembered_id(job_id) not in counter.jobs:
                        needed.setdefault((counter, job_id), False)
        jobs = [(counter.queue, job_id) for counter, job_id in needed]
        read = dict(zip(needed, await read_hashes(self._redis, jobs), strict=True))
        with_options = [
            (counter, job_id)
            for (counter, job_id), each in read.items()
            if needed[counter, job_id] or needs_options(counter, job_id, each, self._since[counter])
        ]
        options = await read_job_options(
            self._redis, [(counter.queue, job_id) for counter, job_id in with_options]
        )
        for key, opts in zip(with_options, options, strict=True):
            read[key] = read[key]._replace(opts=opts or b"")
        hashes: dict[QueueEventCounter, dict[bytes, JobHash]] = {}
        for (counter, job_id), known in read.items():
            hashes.setdefault(counter, {})[job_id] = known
        return hashes

    # Pings

    async def _ping_if_due(self) -> None:
        now = time.monotonic()
        if now < self._ping_due or self._ping is not None:
            return
        self._ping_due = now + PING_INTERVAL_SECONDS
        asked = self._stale_jobs.take_batch(self._counters.values())
        exist = await self._redis.pipeline(
            [(b"EXISTS", each.counter.queue.job_key(each.job_id)) for each in asked]
        )
        await self._subscription.ping()
        answers = self._subscription.answered + self._subscription.unanswered
        self._ping = _Ping(answers, asked, exist, frozenset(self._ahead))
        self._ahead.clear()
        for counter in self._counters.values():
            counter.note_check()

    async def _note_answers(self) -> None:
        """If the ping is answered, note what is certain: every earlier message was counted."""
        ping = self._ping
        if ping is None or self._subscription.answered < ping.answers:
            return
        self._ping = None
        async with self._counts.consistent:
            forget_stale(ping.asked, ping.exist, ())
            for counter in ping.ahead - self._ahead:
                counter.note_caught_up()
            self._counts.heard_until = max(
                self._counts.heard_until or 0, _epoch(self._subscription.heard_until)
            )
            if self._active and self._subscription.answered >= self._active_after:
                self._note_active()
                await self._resolve()

    def _note_active(self) -> None:
        """Track the jobs that were already active when their queues were first read."""
        active, self._active = self._active, {}
        moved, self._moved = self._moved, {}
        for counter, jobs in active.items():
            if counter.queue not in self._counters:
                continue
            for job_id, started in jobs:
                if job_id not in moved[counter] and remembered_id(job_id) not in counter.jobs:
                    at = b"%d-0" % min(started, self._next_time())
                    counter.read([(at, [b"event", b"active", b"jobId", job_id])])
            self._resolver.note(counter)


def _now() -> int:
    return int(1000 * time.time())


def _epoch(monotonic: float) -> int:
    return int(1000 * (time.time() - (time.monotonic() - monotonic)))
