"""Keeps watch: discovers the queues and polls them, for as long as it runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from exporter.bullmq.collectors import all_collectors
from exporter.bullmq.collectors.collector import Collectors
from exporter.bullmq.connection import InvalidReply, RedisReader, RedisUnavailable
from exporter.bullmq.discovery import Findings, Search, within_limit
from exporter.bullmq.keys import Queue, text
from exporter.bullmq.poll import Poller
from exporter.bullmq.remarks import (
    IN_A_CLUSTER,
    Remark,
    not_searched,
    other_databases,
    remarks_on,
)
from exporter.bullmq.request_priority import RequestPriority
from exporter.bullmq.retry import MAX_RETRY_SECONDS, retry_pause
from exporter.bullmq.snapshot import QueueReading, Snapshot
from exporter.bullmq.supervision import supervise
from exporter.bullmq.waiting import WaitingJobs
from exporter.bullmq.worker_clock import CompareClock
from exporter.settings import Settings

log = logging.getLogger(__name__)

# How many reasons of one outage are logged, each once.
MAX_OUTAGE_REASONS = 10

# A scan of all keys, once the first is done, rests nine times as long as it works.
SCAN_PACE = 9.0

# A run of a collector may take this part of a poll's time limit.
COLLECTOR_SHARE = 6

# Seconds after which all keys are searched again for queues that are not watched.
SEARCH_EVERYWHERE_SECONDS = 3600.0

# Seconds after which the absence of any queue is a warning: an application that starts together
# with the exporter has created its queues by then.
PATIENCE_SECONDS = 60.0

# Why queues are not watched: beyond max_queues; by the settings queues and queues_exclude; of a
# prefix that is not configured; of Bull 3 or 4, whose keys have another layout; of a name with more
# than keys.MAX_BASE_BYTES.
UNWATCHED_LIMIT = "max_queues"
UNWATCHED_EXCLUDED = "excluded"
UNWATCHED_PREFIX = "prefix"
UNWATCHED_BULL = "bull"
UNWATCHED_LONG_NAME = "long_name"

# How many values that cannot be read one poll names in the log.
MAX_COMPLAINTS = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one poll went: a snapshot, or why there is none. `duration` is in seconds."""

    snapshot: Snapshot | None
    error: str | None
    duration: float


class Watcher:
    """Polls Redis and hands each outcome to `publish`."""

    def __init__(
        self,
        redis: RedisReader,
        settings: Settings,
        publish: Callable[[Outcome], Awaitable[None]],
        request_priority: RequestPriority | None = None,
        waiting: WaitingJobs | None = None,
        *,
        compare_clock: CompareClock = lambda *_: None,
    ) -> None:
        self._redis = redis
        self._settings = settings
        self._publish = publish
        self._request_priority = request_priority or RequestPriority()
        self._poller = Poller(
            redis,
            max_schedulers=settings.max_schedulers,
            request_priority=self._request_priority,
            waiting=waiting,
            compare_clock=compare_clock,
        )
        self._search = Search(
            redis, settings, limit=settings.max_queues, request_priority=self._request_priority
        )
        self._search_everywhere_due = 0.0
        # Named queues are watched even if they are not in Redis.
        self.configured = frozenset(
            Queue.named(prefix, name)
            for prefix in settings.plain_prefixes
            for name in settings.plain_queues
        )
        self._queues: tuple[Queue, ...] | None = None
        if not settings.has_search:
            self._queues = tuple(sorted(self.configured, key=lambda queue: queue.base))
        self._unwatched: Mapping[str, int] | None = None
        self._left_out: frozenset[Queue] = frozenset()  # beyond max_queues
        # Queues that were beyond max_queues before they were watched: when last (epoch ms).
        self._admitted: Mapping[Queue, int] = {}
        self._started = time.monotonic()
        self._remarks: list[Remark] = []  # on what the last search of all keys found
        self._search_refused: str | None = None
        self._by_key: tuple[tuple[Queue, ...] | None, Mapping[str, Queue]] = (None, {})
        self._collectors = Collectors(
            redis, all_collectors(redis, settings, self._request_priority, compare_clock)
        )
        self._readings: Sequence[QueueReading] = ()
        self._read_once = asyncio.Event()
        self._discovered: float | None = None
        self._searched_at: int | None = None
        self._queues_changed = asyncio.Event()
        self._up = False
        self._failures = 0  # consecutive ones
        self._outage_reasons: set[str | None] = set()
        self._complained: set[tuple[Queue, str]] = set()

    @property
    def queues(self) -> tuple[Queue, ...] | None:
        """The queues that are watched now, None before the first discovery."""
        return self._queues

    @property
    def by_key(self) -> Mapping[str, Queue]:
        """The queues that are watched, by what their keys begin with (without the last colon)."""
        if self._by_key[0] is not self._queues:
            queues = self._queues or ()
            self._by_key = (self._queues, {text(each.base[:-1]): each for each in queues})
        return self._by_key[1]

    @property
    def searched_at(self) -> int | None:
        """When the search began that found `queues`, epoch ms; None if all are named."""
        return self._searched_at

    def not_watched_until(self, queue: Queue) -> int | None:
        """When a queue was last unwatched because of max_queues, epoch ms; None for a new one.

        Earlier events of it do not count.
        """
        return self._admitted.get(queue)

    async def run(self) -> None:
        """Watch until cancelled."""
        if self._settings.redis.cluster:
            _log(IN_A_CLUSTER)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(supervise("a poll failed", self._run_poll, rest=self._rest))
            search = self._search_again if self._settings.has_search else self._look_for_named
            tasks.create_task(supervise("the search for queues failed", search))

    async def remarks(self) -> list[Remark]:
        """What is not watched or not read, after a poll: for --check."""
        refused = []
        if not self._settings.has_search:
            try:
                await self._search_for_named(pace=0)
            except RedisUnavailable as error:
                refused.append(not_searched(str(error)))
        remarks = [*self._remarks, *refused]
        if not self.has_found and (others := await other_databases(self._redis, self._settings)):
            remarks.append(others)
        remarks += self._collectors.remarks()
        return [*remarks, IN_A_CLUSTER] if self._settings.redis.cluster else remarks

    @property
    def has_found(self) -> bool:
        """Whether any queue that is watched was in Redis at the last poll."""
        return any(
            self._poller.exists(reading.queue)
            for reading in self._readings
            if reading.queue in self.configured
        ) or any(reading.queue not in self.configured for reading in self._readings)

    async def poll(self) -> Outcome:
        """One poll, after the first discovery where that is still to be done."""
        began = time.monotonic()
        first = self._queues is None
        try:
            with self._redis.understanding():
                snapshot = await self._snapshot()
        except RedisUnavailable as error:
            if isinstance(error, InvalidReply):
                # What was remembered of its answers may be as wrong.
                self._poller.forget_all()
                self._collectors.forget()
            return Outcome(None, str(error), time.monotonic() - began)
        if first:
            self._log_changes((), self._queues or ())
        self._complain_once(snapshot)
        return Outcome(snapshot, None, time.monotonic() - began)

    async def _snapshot(self) -> Snapshot:
        if self._queues is None:
            began = time.time()
            self._queues = self._watch(await self._discover(pace=0))
            self._discovered, self._searched_at = time.time(), int(1000 * began)
        # Each call has its limit; this is one for all of them: what is exposed must not be old.
        limit = self._time_limit
        try:
            async with asyncio.timeout(limit):
                return await self._read(self._queues)
        except TimeoutError:
            raise RedisUnavailable(
                f"Redis at {self._settings.redis.address} answers too slowly: "
                f"a poll of {len(self._queues)} queues took over {limit:g} s"
            ) from None

    @property
    def _time_limit(self) -> float:
        """Seconds that a poll may take."""
        return max(self._settings.poll_interval, 2 * self._settings.redis.timeout)

    async def _read(self, known: tuple[Queue, ...]) -> Snapshot:
        readings = await self._poller.poll(known, configured=self.configured)
        self._readings = readings
        self._read_once.set()
        facts = await self._collectors.run_due(readings, seconds=self._time_limit / COLLECTOR_SHARE)
        return Snapshot(readings, facts, self._discovered, self._unwatched)

    async def _discover(self, pace: float) -> Findings:
        now = time.monotonic()
        everywhere = now >= self._search_everywhere_due or not self._queues
        findings = await self._search.run(
            pace=pace, known=self._queues or (), everywhere=everywhere
        )
        if everywhere:
            # An application that starts together with us has not made all of its queues yet.
            settled = self._started + PATIENCE_SECONDS
            later = now + SEARCH_EVERYWHERE_SECONDS
            self._search_everywhere_due = min(settled, later) if now < settled else later
            self._remark(findings)
        return findings

    def _remark(self, findings: Findings) -> None:
        """Log what is not watched, each remark once."""
        remarks = remarks_on(
            self._settings,
            findings,
            named=self.configured,
            patient=time.monotonic() - self._started < PATIENCE_SECONDS,
        )
        for remark in remarks:
            if remark not in self._remarks:
                _log(remark)
        self._remarks = remarks

    async def _look_for_named(self) -> None:
        """Log once which named queues are not in Redis, with similar names that are."""
        await self._read_once.wait()
        if all(each.version or any(each.counts.values()) for each in self._readings):
            return
        try:
            with self._redis.understanding():
                await self._search_for_named(SCAN_PACE)
        except RedisUnavailable as error:
            log.debug("named queues could not be looked for", extra={"reason": str(error)})

    async def _search_for_named(self, pace: float) -> None:
        all_names = self._settings.model_copy(update={"queues": (), "queues_exclude": ()})
        limit = self._settings.max_queues
        search = Search(
            self._redis, all_names, limit=limit, request_priority=self._request_priority
        )
        self._remark(await search.run(pace=pace, everywhere=True))

    def _watch(self, findings: Findings, alive: Iterable[Queue] = ()) -> tuple[Queue, ...]:
        """Return the queues to watch, and note how many are not watched."""
        queues, left_out = within_limit(
            {*findings.queues, *alive, *self.configured},
            {*alive, *self.configured},
            self._settings.max_queues,
        )
        if self._searched_at is not None and (self._left_out or self._admitted):
            new = {queue: self._searched_at for queue in self._left_out.intersection(queues)}
            kept = self._admitted.keys() & set(queues)
            self._admitted = {queue: self._admitted[queue] for queue in kept} | new
        self._left_out = left_out
        before = dict(self._unwatched or {})
        if left_out and not before.get(UNWATCHED_LIMIT):
            log.warning(
                "queues beyond max_queues are not watched",
                extra={"max_queues": self._settings.max_queues, "count": len(left_out)},
            )
        now = {
            UNWATCHED_LIMIT: len(left_out),
            UNWATCHED_EXCLUDED: findings.excluded,
            UNWATCHED_LONG_NAME: findings.too_long,
        }
        if findings.other_prefixes is not None and findings.bull is not None:
            now[UNWATCHED_PREFIX] = sum(findings.other_prefixes.values())
            now[UNWATCHED_BULL] = len(findings.bull)
        self._unwatched = before | now
        return queues

    async def _search_again(self) -> float:
        """Search for queues that have appeared; return the seconds until the next search."""
        interval, before = self._settings.discovery_interval, self._queues
        if before is None:
            return interval  # the first search is the poll's
        began = time.time()
        try:
            with self._redis.understanding():
                found = await self._discover(SCAN_PACE)
        except RedisUnavailable as error:
            # The poll reports an outage; but SCAN may be refused while all else works.
            if self._search_refused is None and self._up:
                _log(not_searched(str(error)))
                self._search_refused = str(error)
            return interval
        if self._search_refused is not None:
            log.info("queues can be searched for again")
            self._search_refused = None
        # A scan that a reconnect to another server broke into misses queues: those that the
        # last poll still found stay.
        await self._request_priority.yield_to_requests()
        queues = self._watch(found, [reading.queue for reading in self._readings])
        self._discovered, self._searched_at = time.time(), int(1000 * began)
        if queues != before:
            self._queues = queues
            self._queues_changed.set()
            self._log_changes(before, queues)
        return interval

    def _log_changes(self, before: tuple[Queue, ...], now: tuple[Queue, ...]) -> None:
        for what, queues in (
            ("found queues", set(now) - set(before)),
            ("queues are gone", set(before) - set(now)),
        ):
            if queues:
                names = sorted(queue.name for queue in queues)
                shown = ", ".join(names[:10])
                log.info(what, extra={"count": len(names), "queues": shown})

    async def _run_poll(self) -> float:
        """Poll and publish; return the seconds until the next poll."""
        began = time.monotonic()
        outcome = await self.poll()
        await self._publish(outcome)
        took = time.monotonic() - began
        self._up = outcome.snapshot is not None
        if self._up:
            if self._failures:
                log.info("Redis is back", extra={"failed_polls": self._failures})
            self._failures, self._outage_reasons = 0, set()
            # At most half of the time goes into polls.
            return max(self._settings.poll_interval - took, took)
        # Each reason once per outage: a Redis that alternates between loading and being too
        # busy would fill the log.
        reasons = self._outage_reasons
        if outcome.error not in reasons and len(reasons) < MAX_OUTAGE_REASONS:
            reasons.add(outcome.error)
            log.error("Redis is unavailable", extra={"reason": outcome.error})
        self._failures += 1
        self._collectors.expire()
        longest = max(self._settings.poll_interval, MAX_RETRY_SECONDS)
        await asyncio.sleep(retry_pause(self._failures, longest))
        return 0.0

    async def _rest(self, seconds: float) -> None:
        """Wait until the next poll is due, or until a new queue is found."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._queues_changed.wait()
        self._queues_changed.clear()

    def _complain_once(self, snapshot: Snapshot) -> None:
        """A line for each value that cannot be read, when that begins; at most so many a poll."""
        unreadable = {
            (reading.queue, what): why
            for reading in snapshot.readings
            for what, why in reading.unreadable
        }
        new = unreadable.keys() - self._complained
        for queue, what in sorted(new, key=lambda place: (place[0].base, place[1]))[
            :MAX_COMPLAINTS
        ]:
            log.warning(
                "value unreadable; omitted",
                extra={"queue": queue.name, "value": what, "reason": unreadable[queue, what]},
            )
        if len(new) > MAX_COMPLAINTS:
            log.warning("more values cannot be read", extra={"count": len(new) - MAX_COMPLAINTS})
        self._complained = set(unreadable)


def _log(remark: Remark) -> None:
    log.log(remark.level, remark.what, extra={"detail": remark.detail})
