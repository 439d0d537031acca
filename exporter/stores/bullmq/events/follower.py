"""Follows the event streams of all queues over one connection, and keeps their counters."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, Unpack

from exporter.concurrency.batches import batched
from exporter.queues.event_log import (
    Entry,
    Gap,
    StreamInfo,
    UncertainGap,
    check_entries,
    milliseconds,
)
from exporter.queues.job_facts import number
from exporter.queues.queue import Queue, State
from exporter.queues.queue_event_counter import QueueEventCounter
from exporter.settings import EventsSettings
from exporter.stores.bullmq.events import job_facts
from exporter.stores.bullmq.events.backfill import Backfill
from exporter.stores.bullmq.events.check_rounds import CheckRounds
from exporter.stores.bullmq.events.large_entries import (
    LARGE_ENTRY_BYTES,
    SCRIPT_STREAMS,
    LargeEntries,
    Reading,
)
from exporter.stores.bullmq.events.read_size import MAX_READ_COST, ReadSize
from exporter.stores.bullmq.events.scarce_events import ScarceEvents
from exporter.stores.bullmq.events.stream_info import stream_info
from exporter.stores.bullmq.keys import events_key
from exporter.stores.bullmq.waiting import ready_by_hash
from exporter.stores.events.event_follower import EventFollower, Surroundings
from exporter.stores.events.stale_jobs import Candidate, StaleJobs, forget_stale
from exporter.stores.redis.client import (
    RedisReader,
    RedisRefused,
    RedisUnavailable,
    ReplyIncomplete,
    expected,
    mapped,
    packed,
)

log = logging.getLogger(__name__)

# Bytes of a return value or a reason that cost as much as one entry: reads are kept to about 1 MB,
# except the first one after jobs begin to return more.
ENTRY_BYTES = 500

# Maximum number of waiting jobs without a read event that are remembered until their events must
# have been read.
MAX_UNSEEN_JOBS = 20_000

# Streams of one XREAD. With 1,000 of them it blocks Redis 7.0 for 0.3 ms, and for 0.6 ms if it
# waits; if there are more, no XREAD waits, and requests are served between smaller batches.
MAX_STREAMS = 1000
READ_BATCH_SIZE = 250

# How many streams that are behind are read together. With more of them each read would return only
# a few entries of each, and the streams would cost as much as their entries.
BEHIND_BATCH_SIZE = 50

# Seconds that a read waits for an event if there is none, and the pause after a read: quiet queues
# cost one command a second, busy ones are read in large batches.
BLOCK = 1.0
PAUSE = 0.1

# Seconds between two checks of a stream that is behind, from which its lag is exposed.
CHECK_BEHIND_INTERVAL_SECONDS = 0.5
# The same if a check makes Redis copy a large entry.
CHECK_LARGE_INTERVAL_SECONDS = 5.0
CHECK_BATCH_SIZE = 100

# Entries that are counted before requests are served: 1 ms.
COUNT_BATCH_SIZE = 300

# While some streams are behind, seconds after which the others are read again.
READ_ALL_INTERVAL_SECONDS = 0.3

# Consecutive reads without data after which their replies may be too large: something between us
# and Redis may hold them back until they are complete.
MAX_SILENT_READS = 2

# Seconds per step for streams with large entries, before all other streams are read again.
MAX_LARGE_SECONDS = 1.0


class Behind(NamedTuple):
    """A stream that was not read to the end."""

    lag: float  # seconds, as of its last check
    check_due: float  # monotonic


class Follower(EventFollower):
    """Counts what happens to jobs, from the streams of `queues`."""

    def __init__(
        self,
        redis: RedisReader,
        settings: EventsSettings,
        queues: Callable[[], tuple[Queue, ...] | None],
        *,
        redis_timeout: float,
        **around: Unpack[Surroundings],
    ) -> None:
        super().__init__(
            settings, queues, partial(job_facts.ask, redis), stream_of=events_key, **around
        )
        self._redis = redis
        self._block = int(1000 * min(BLOCK, redis_timeout / 3))
        self._by_stream: dict[bytes, QueueEventCounter] = {}
        self._unreadable: set[Queue] = set()
        self._large = LargeEntries(redis)
        self._scarce = ScarceEvents(redis)
        self._silent_reads = 0  # consecutive reads without data
        self._incomplete = ""  # why replies were incomplete, while LargeEntries reads their streams
        self._incomplete_logged = False
        self._read_size = ReadSize()
        # Streams that were not read to the end, the one that was read last at the end.
        self._behind: dict[Queue, Behind] = {}
        self._all_due = 0.0
        self._checks = CheckRounds()
        self._stale_jobs = StaleJobs()
        self._opened: dict[Queue, int] = {}  # in which pass a queue was first read
        self._passes = 0  # how often all streams were read to the end
        # Jobs that wait and are not known from events: in which pass they were first asked for.
        self._unseen: dict[tuple[Queue, bytes, float], int] = {}
        self._backfill = Backfill(redis, self._scarce, self._counts.consistent)

    def _understanding(self) -> AbstractContextManager[None]:
        return self._redis.understanding()

    def _begin_anew(self) -> None:
        """After a failed step all streams are checked."""
        self._read_size.begin_anew()
        self._checks.begin_anew()

    def ready_times(self, queue: Queue, jobs: Sequence[Any]) -> Sequence[float | None]:
        """When waiting jobs became ready, in ms; see QueueEventCounter.ready_at.

        Uses the hashes while events are unread, as a job may have been taken and returned since.
        """
        counter = self._counters.get(queue)
        unread = queue in self._behind or queue in self._unreadable
        if counter is None or unread or not self._counts.is_current:
            return ready_by_hash(queue, jobs)
        each = iter(jobs)
        return [
            by_hash
            if by_hash is not None and self._may_be_unread(queue, counter, job_id, by_hash)
            else counter.ready_at(job_id, by_hash)
            for job_id, by_hash in zip(each, each, strict=True)
        ]

    def compare_clock(self, queue: Queue, state: State, job_id: bytes, at: bytes) -> None:
        """Compare a worker's clock with Redis's; see CompareClock.

        Not while events are unread: the job may have been moved again.
        """
        counter, moved = self._counters.get(queue), number(at)
        if (
            counter is not None
            and moved > 0
            and self._counts.is_current
            and queue not in self._behind
        ):
            counter.compare_clock(state, job_id, moved)

    def _may_be_unread(
        self, queue: Queue, counter: QueueEventCounter, job_id: bytes, by_hash: float
    ) -> bool:
        """Whether a job's events may be unread: they are not after one whole pass since the job was
        first seen. (This notes which jobs were requested.)
        """
        if job_id in counter.jobs:
            return False
        if len(self._unseen) >= MAX_UNSEEN_JOBS:
            self._unseen.clear()
        seen = self._unseen.setdefault((queue, job_id, by_hash), self._passes)
        return self._passes < seen + 2

    # One read

    async def _step(self) -> float:
        """Read new events once; return how long to sleep before the next time, in seconds."""
        await self._resolve()
        if await self._keep_up_with_queues() is False:
            return PAUSE
        now = time.monotonic()
        asked: list[Candidate] = []
        whole = not self._behind or now >= self._all_due
        if not whole:
            followed = [self._counters[queue] for queue in islice(self._behind, BEHIND_BATCH_SIZE)]
            for counter in followed:  # next time the streams after them
                self._behind[counter.queue] = self._behind.pop(counter.queue)
        else:
            followed = list(self._counters.values())
            self._all_due = now + READ_ALL_INTERVAL_SECONDS
            self._checks.begin_if_due(now, self._counters.keys(), self._always_checked)
            asked = self._stale_jobs.take_batch(self._counters.values())
        # Before all streams are read: if a job is gone by then, it writes no further event.
        exist = await self._redis.pipeline(
            [(b"EXISTS", each.counter.queue.job_key(each.job_id)) for each in asked]
        )
        # If there is something left to do, no read waits; and while one command waits for its
        # streams, those of another would be trimmed.
        wait = len(followed) <= MAX_STREAMS and not self._behind and not self._backfill.is_running
        costs = [
            await self._read(counters, wait=wait)
            for counters in batched(followed, MAX_STREAMS if wait else READ_BATCH_SIZE)
        ]
        costs.append(await self._read_large(followed))
        cost = sum(each or 0 for each in costs)
        self._counts.lag = max((each.lag for each in self._behind.values()), default=0.0)
        if None not in costs:
            self._passes += whole
            forget_stale(asked, exist, self._behind)
        await self._backfill.run_page(self._counters, self._behind)
        async with self._counts.consistent:
            self._scarce.apply(self._behind)
        await self._scarce.ask()
        self._counts.is_current = True
        if self._behind:
            return 0.0
        if self._large and not cost and all(each.stream in self._large for each in followed):
            return self._block / 1000  # as a read of the others would have waited
        # Reading next to nothing from 10,000 streams takes 20 ms of a core.
        many = 1.0 if cost > MAX_READ_COST // 10 else len(followed) / MAX_STREAMS
        return PAUSE * min(max(many, 1.0), 3.0)

    async def _read(self, counters: Sequence[QueueEventCounter], *, wait: bool) -> int | None:
        """Read and count new entries of these streams; return the cost in entries.

        None if some key does not hold a stream: then none was read.
        """
        await self._request_priority.yield_to_requests()
        checked = self._due_checks(counters)
        if self._unreadable:
            counters = [each for each in counters if each.queue not in self._unreadable]
        if self._large:
            counters = [each for each in counters if each.stream not in self._large]
        # The order matters: XINFO's result is from before the read.
        commands = [packed((b"XINFO", "STREAM", each.stream)) for each in checked]
        if counters:
            commands.append(self._xread(counters, wait=wait))
        if not commands:
            return 0
        try:
            answers = await self._redis.packed(b"".join(commands), len(commands), unknown_size=True)
        except RedisUnavailable as error:
            self._checks.add(each.queue for each in checked)
            # Without keys that do not hold a stream: nothing would read or check them again.
            asked = {*counters, *checked}
            self._suspect(error, {e.stream for e in asked if e.queue not in self._unreadable})
            if isinstance(error, ReplyIncomplete):
                return None
            raise
        self._silent_reads = 0
        entries: dict[bytes, list[Entry]] = {}
        if counters:
            reply = answers.pop()
            if isinstance(reply, Exception):
                if "WRONGTYPE" not in str(reply):
                    raise RedisRefused(f"Redis refused XREAD: {reply}")
                await self._find_unreadable(counters)
                self._checks.add(each.queue for each in checked)
                return None
            if reply is not None:
                expected([reply], dict, list)
                entries.update(reply)
            positions = {each.stream: each.cursor.position for each in counters}
            for stream, read in entries.items():
                check_entries(read, positions[stream])
        await self._request_priority.yield_to_requests()
        async with self._counts.consistent:
            count = self._read_size.count
            unfinished = {stream for stream, new in entries.items() if len(new) >= count}
            for counter, answer in zip(checked, answers, strict=True):
                info = self._info(counter, answer)
                new = entries.get(counter.stream, ())
                self._check(counter, info, new, complete=counter.stream not in unfinished)
            cost = await self._count_entries(counters, entries, unfinished)
            await self._resolve()
        return cost

    def _info(self, counter: QueueEventCounter, answer: Any) -> StreamInfo | Exception:
        if isinstance(answer, Exception):
            return answer
        reply = mapped(answer)
        ends = [reply.get(end) for end in (b"first-entry", b"last-entry")]
        self._large.note_info(
            counter.stream, *(sum(map(len, end[1])) if end else 0 for end in ends)
        )
        return stream_info(reply)

    # Large entries

    def _suspect(self, error: RedisUnavailable, streams: set[bytes]) -> None:
        """Read these streams as LargeEntries does: a reply was incomplete, or may be."""
        incomplete = isinstance(error, ReplyIncomplete)
        if isinstance(error, RedisRefused):
            return
        self._silent_reads += not incomplete
        if incomplete or self._silent_reads >= MAX_SILENT_READS:
            self._large.suspect(streams)
            self._incomplete = str(error)
            self._read_size.begin_anew()

    async def _read_large(self, followed: Sequence[QueueEventCounter]) -> int | None:
        """Read those streams that have large entries; return the cost in entries."""
        counters = [
            each
            for each in self._large.in_turn(followed)
            if each.queue not in self._unreadable
            if each.stream in self._large or each.queue in self._checks
        ]
        cost, end = 0, time.monotonic() + MAX_LARGE_SECONDS
        while counters and time.monotonic() < end:
            await self._request_priority.yield_to_requests()
            due = self._due_large_checks(counters[:SCRIPT_STREAMS])
            reading = await self._large.read(counters, due)
            await self._request_priority.yield_to_requests()
            async with self._counts.consistent:
                cost += await self._count_reading(reading)
                await self._resolve()
            read = set(reading.counters)
            counters = [each for each in counters if each not in read]
        # Streams that were not reached may have as many entries to read.
        for counter in counters:
            self._behind.setdefault(counter.queue, Behind(0.0, 0.0))
        return cost

    async def _count_reading(self, reading: Reading) -> int:
        for counter, info in reading.infos.items():
            new = reading.entries.get(counter.stream, reading.unread.get(counter, []))
            self._checks.remove([counter.queue])
            if info is None:
                counter.note_check()
                continue
            if isinstance(info, Exception) and "WRONGTYPE" in str(info):
                self._leave_out(counter, str(info))
                continue
            self._check(counter, info, new, complete=counter.stream not in reading.unfinished)
        cost = await self._count_entries(reading.counters, reading.entries, reading.unfinished)
        for counter, unread in reading.unread.items():
            counter.pass_over(unread)
            counter.cursor.advance(unread)
            self._checks.touch(counter.queue)
            log.warning("an event cannot be read: skipped", extra={"queue": counter.queue.name})
        self._log_large(reading)
        return cost

    def _log_large(self, reading: Reading) -> None:
        if self._incomplete and reading.large and not self._incomplete_logged:
            log.warning(
                "replies with events are too large or too slow: reading them without return values",
                extra={"queue": reading.counters[0].queue.name, "reason": self._incomplete},
            )
            self._incomplete_logged = True
        if self._incomplete and not self._large.suspects:
            if self._incomplete_logged:
                log.info("events whose replies were too large or too slow have been read")
            self._incomplete, self._incomplete_logged = "", False

    def _due_large_checks(self, counters: Sequence[QueueEventCounter]) -> set[QueueEventCounter]:
        now, nothing = time.monotonic(), Behind(0.0, math.inf)
        return {
            each
            for each in counters
            if each.queue in self._checks or self._behind.get(each.queue, nothing).check_due <= now
        }

    def _xread(self, counters: Sequence[QueueEventCounter], *, wait: bool) -> bytes:
        """The packed command that reads these streams."""
        count = self._read_size.choose(len(counters))
        block = ("BLOCK", self._block) if wait else ()
        streams = [each.stream for each in counters]
        places = [each.cursor.position for each in counters]
        return packed(("XREAD", "COUNT", count, *block, "STREAMS", *streams, *places))

    async def _count_entries(
        self,
        counters: Sequence[QueueEventCounter],
        entries: Mapping[bytes, list[Entry]],
        unfinished: Collection[bytes],
    ) -> int:
        """Record new entries; return their cost in entries. `unfinished` streams may have more."""
        behind: set[Queue] = set()
        cost = number = counted = 0
        for stream, new in entries.items():
            counter = self._by_stream[stream]
            if counted >= COUNT_BATCH_SIZE:
                counted = 0
                await self._request_priority.yield_to_requests()
            counted += len(new)
            if stream in unfinished:
                behind.add(counter.queue)
                # The next entry, which this read does not have, says whether the job stalled.
                if len(new) > 1 and b"waiting" in new[-1][1]:
                    new.pop()
            values = sum(len(fields[5]) for _, fields in new if len(fields) > 5)
            if values >= LARGE_ENTRY_BYTES:
                # LargeEntries reads large ones from now on: they do not predict the size of others.
                self._large.note_entries(stream, new)
                sizes = (len(fields[5]) for _, fields in new if len(fields) > 5)
                values = sum(size for size in sizes if size < LARGE_ENTRY_BYTES)
            cost += len(new) + values // ENTRY_BYTES
            number += len(new)
            if new and self._is_read_up(counter.queue):
                self._counts.clock.note_event(milliseconds(new[-1][0]))
            try:
                counter.read(new)
            except Exception:
                # If they were read again, they would be counted twice, and fail again.
                log.exception("events passed over", extra={"queue": counter.queue.name})
                counter.pass_over(new)
            counter.cursor.advance(new)
            self._checks.touch(counter.queue)
            if counter.cleaned:
                counter.cleaned = False
                self._stale_jobs.check_soon(counter)
            self._resolver.note(counter)
        self._note_behind(counters, behind)
        self._counts.events_read += number
        self._read_size.note(cost, number)
        return cost

    def _note_behind(self, counters: Sequence[QueueEventCounter], behind: set[Queue]) -> None:
        """Note which of these streams were not read to the end; earlier ones keep their place."""
        for queue in behind:
            self._behind.setdefault(queue, Behind(0.0, 0.0))
        if len(self._behind) > len(behind):
            for counter in counters:
                if counter.queue not in behind:
                    self._behind.pop(counter.queue, None)
        if self._ahead:
            self._note_caught_up(each for each in counters if each.queue not in behind)

    # Which queues

    async def _keep_up_with_queues(self) -> bool:
        """Begin to follow new queues; False if the queues are not known yet."""
        change = self._counts.find_change()
        if change is None:
            return self._counts.has_begun
        await self._look_for_deleted(change.gone)
        opened = [self._counts.open(queue) for queue in change.new]
        if self._counts.begins_now:
            await self._start_from_now(opened)
        for gone in change.gone:
            self._opened.pop(gone.queue, None)
            self._unreadable.discard(gone.queue)
            self._large.forget(gone.stream)
            self._scarce.forget(gone)
            self._behind.pop(gone.queue, None)
            self._ahead.discard(gone)
            self._checks.forget(gone.queue)
        self._opened |= dict.fromkeys(change.new, self._passes)
        self._counts.apply(change, opened)
        self._by_stream = {counter.stream: counter for counter in self._counters.values()}
        self._backfill.restart(self._counters.values())
        return True

    async def _look_for_deleted(self, counters: Iterable[QueueEventCounter]) -> None:
        """Note which streams of removed queues were deleted: no check will find that later."""
        unsure = [each for each in counters if self._was_written_to(each)]
        exist = await self._redis.pipeline([(b"EXISTS", each.stream) for each in unsure])
        for counter, exists in zip(unsure, exist, strict=True):
            if exists == 0:
                self._note_deleted(counter)

    def _is_read_up(self, queue: Queue) -> bool:
        """Whether the last step read its stream to the end: new entries were written since."""
        was_read = self._counts.is_current and queue not in self._behind
        return was_read and self._passes > self._opened.get(queue, self._passes)

    async def _start_from_now(self, counters: Sequence[QueueEventCounter]) -> None:
        for batch in batched(counters, CHECK_BATCH_SIZE):
            for counter, info in (await self._infos(batch)).items():
                if isinstance(info, StreamInfo):
                    counter.cursor.start(info)
                    counter.start(milliseconds(info.last))
                elif "NOPERM" in str(info):
                    raise RedisRefused(f"Redis refused XINFO: {info}")

    async def _infos(
        self, counters: Sequence[QueueEventCounter]
    ) -> Mapping[QueueEventCounter, StreamInfo | Exception]:
        """The XINFO of each stream."""
        commands = b"".join([packed((b"XINFO", "STREAM", each.stream)) for each in counters])
        try:
            answers = await self._redis.packed(commands, len(counters), unknown_size=True)
        except ReplyIncomplete as error:
            # Each reply contains two entries.
            log.debug("reading the XINFO of each stream separately", extra={"reason": str(error)})
        else:
            return {
                counter: self._info(counter, answer)
                for counter, answer in zip(counters, answers, strict=True)
            }
        infos: dict[QueueEventCounter, StreamInfo | Exception] = {}
        left = list(counters)
        while left:
            reading = await self._large.read(left, left, entries=False)
            infos.update({each: info for each, info in reading.infos.items() if info is not None})
            left = [each for each in left if each not in reading.infos]
        return infos

    async def _find_unreadable(self, followed: Sequence[QueueEventCounter]) -> None:
        """Skip keys that do not hold a stream: because of one of them XREAD rejects all."""
        answers = await self._redis.pipeline([(b"TYPE", counter.stream) for counter in followed])
        for counter, kind in zip(followed, answers, strict=True):
            if kind not in (b"stream", b"none"):
                self._leave_out(counter, f"the key is a {kind!r}")

    def _leave_out(self, counter: QueueEventCounter, reason: str) -> None:
        self._unreadable.add(counter.queue)
        self._behind.pop(counter.queue, None)
        self._large.forget(counter.stream)
        log.warning(
            "events unreadable; skipped", extra={"queue": counter.queue.name, "reason": reason}
        )

    # Checks

    @property
    def _always_checked(self) -> set[Queue]:
        return self._unreadable | {each.queue for each in self._scarce.off}

    def _due_checks(self, counters: Sequence[QueueEventCounter]) -> list[QueueEventCounter]:
        """Which of these streams to compare now."""
        if not self._checks and not self._behind:
            return []
        now, nothing = time.monotonic(), Behind(0.0, math.inf)
        due = [
            each
            for each in counters
            if each.queue in self._checks or self._behind.get(each.queue, nothing).check_due <= now
            if not self._large.is_checked_here(each.stream)
        ][:CHECK_BATCH_SIZE]
        self._checks.remove(each.queue for each in due)
        return due

    def _check(
        self,
        counter: QueueEventCounter,
        info: StreamInfo | Exception,
        entries: Sequence[Entry],
        *,
        complete: bool,
    ) -> None:
        if isinstance(info, Exception):
            if "no such key" in str(info):
                if counter.cursor.first is not None:
                    log.info("the events are gone", extra={"queue": counter.queue.name})
                self._note_deleted(counter)
                self._unreadable.discard(counter.queue)
            return
        if counter.queue in self._unreadable:
            # It was not read together with this XINFO: its new entries would be counted as missed,
            # then read.
            self._unreadable.discard(counter.queue)
            self._checks.add([counter.queue])
            return
        queue = counter.queue.name
        if counter.cursor.has_doubtful_start(info):
            self._counts.uncertain_gaps += 1
            log.warning(
                "older events are skipped, by a clock that may be wrong: some may not be counted",
                extra={"queue": queue},
            )
        if counter.cursor.has_gone_back(info) and not entries and not counter.cursor.is_entry:
            # It has no entries since the time from which it is read.
            counter.cursor.start(info)
            return
        if counter.cursor.has_gone_back(info) and not entries:
            counter.forget_all()
            anew = counter.cursor.go_back(info)
            # In an older copy new entries cannot be distinguished from known ones; for a new stream
            # it is unknown what was unread in the previous one.
            self._counts.uncertain_gaps += 1
            log.warning(
                "event stream was created anew; reading it from the start"
                if anew
                else "event stream rewound; skipping entries already counted",
                extra={"queue": queue},
            )
            return
        if counter.queue in self._behind:
            lag = (milliseconds(info.last) - milliseconds(counter.cursor.position)) / 1000
            is_costly = self._large.is_checked_here(counter.stream)
            pause = CHECK_LARGE_INTERVAL_SECONDS if is_costly else CHECK_BEHIND_INTERVAL_SECONDS
            self._behind[counter.queue] = Behind(lag, time.monotonic() + pause)
        known = counter.cursor.number
        read = counter.cursor.read
        gap = counter.cursor.check(info, entries, complete=complete)
        self._scarce.note_check(counter, gap.missed if gap else 0, read, info.length)
        if known is not None and (counter.cursor.number or 0) < known:
            log.info(
                "event stream was created anew; reading it from the start", extra={"queue": queue}
            )
        if gap is not None:
            self._note_gap(counter, gap)
        counter.note_check()

    def _was_written_to(self, counter: QueueEventCounter) -> bool:
        """Whether there were recently entries to read: if the stream is deleted, some may be
        unread.
        """
        return counter.cursor.read > 0 or counter.queue in self._behind

    def _note_deleted(self, counter: QueueEventCounter) -> None:
        self._counts.uncertain_gaps += self._was_written_to(counter)
        counter.cursor.vanish()

    def _note_gap(self, counter: QueueEventCounter, gap: Gap) -> None:
        details: dict[str, Any] = {"queue": counter.queue.name, "count": gap.missed}
        if isinstance(gap, UncertainGap):
            self._counts.uncertain_gaps += 1
            details["at_least"] = True
        if not gap.missed:
            log.info(
                "events may have been missed: the stream was deleted or trimmed", extra=details
            )
            return
        # If this continues, another log line reports it.
        level = logging.DEBUG if self._scarce.is_off(counter) else logging.WARNING
        log.log(level, "events were missed", extra=details)
        counter.note_gap(gap)
        self._backfill.note_gap(counter.queue)
