"""Keeps watch: discovers the queues and polls them, for as long as it runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from exporter.collect.collectors import Collectors
from exporter.concurrency.request_priority import RequestPriority
from exporter.concurrency.retry import MAX_RETRY_SECONDS, retry_pause
from exporter.concurrency.supervision import supervise
from exporter.queues.errors import StoreInvalidReply, StoreRefused, StoreUnavailable
from exporter.queues.queue import Queue
from exporter.queues.remark import Remark, not_searched
from exporter.queues.snapshot import (
    UNWATCHED_BULL,
    UNWATCHED_EXCLUDED,
    UNWATCHED_LIMIT,
    UNWATCHED_LONG_NAME,
    UNWATCHED_PREFIX,
    Outcome,
    QueueReading,
    Snapshot,
)
from exporter.queues.watched_queues import WatchedQueues
from exporter.settings import Settings
from exporter.stores.base import Findings, Store

log = logging.getLogger(__name__)

# How many reasons of one outage are logged, each once.
MAX_OUTAGE_REASONS = 10

# After the first search, a scan of all keys sleeps nine times as long as it works.
SCAN_PACE = 9.0

# The share of a poll's time limit that a run of a collector may take.
COLLECTOR_SHARE = 6

# Seconds between two searches, also if there is a sign of a new queue.
MIN_SEARCH_INTERVAL_SECONDS = 5.0

# Seconds after which all keys are searched again for queues that are not watched.
SEARCH_EVERYWHERE_SECONDS = 3600.0

# Seconds after which it is a warning that there is no queue: an application that starts together
# with the exporter has created its queues by then.
PATIENCE_SECONDS = 60.0

# How many unreadable values one poll names in the log.
MAX_COMPLAINTS = 20


class Watcher:
    """Polls a store and hands each outcome to `publish`."""

    def __init__(
        self,
        store: Store,
        watched: WatchedQueues,
        settings: Settings,
        publish: Callable[[Outcome], Awaitable[None]],
        request_priority: RequestPriority | None = None,
    ) -> None:
        self._store = store
        self._watched = watched
        self._settings = settings
        self._publish = publish
        self._request_priority = request_priority or RequestPriority()
        self._search_everywhere_due = 0.0
        self._unwatched: Mapping[str, int] | None = None
        self._started = time.monotonic()
        self._remarks: Sequence[Remark] = ()  # on what the last search of all keys found
        self._search_refused: str | None = None
        self._search_failures = 0  # consecutive ones
        self._collectors = Collectors(store.collectors, store.understanding)
        self._readings: Sequence[QueueReading] = ()
        self._read_once = asyncio.Event()
        self._discovered: float | None = None
        self._queues_changed = asyncio.Event()
        self._up = False
        self._failures = 0  # consecutive ones
        self._outage_reasons: set[str | None] = set()
        self._complained: set[tuple[Queue, str]] = set()

    async def run(self) -> None:
        """Watch until cancelled."""
        for limitation in self._store.limitations:
            _log(limitation)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(supervise("a poll failed", self._run_poll, rest=self._rest))
            search = self._search_again if self._settings.has_search else self._look_for_named
            tasks.create_task(
                supervise("the search for queues failed", search, rest=self._rest_search)
            )

    async def remarks(self) -> list[Remark]:
        """What is not watched or not read, after a poll: for --check."""
        refused = []
        if not self._settings.has_search:
            try:
                await self._search_for_named(pace=0)
            except StoreUnavailable as error:
                refused.append(not_searched(str(error)))
        remarks = [*self._remarks, *refused]
        if not self.has_found and (elsewhere := await self._store.look_elsewhere()):
            remarks.append(elsewhere)
        if problem := await self._store.check_events():
            remarks.append(problem)
        return [*remarks, *self._collectors.remarks(), *self._store.limitations]

    @property
    def has_found(self) -> bool:
        """Whether any queue that is watched was in Redis at the last poll."""
        return any(
            reading.queue not in self._watched.configured or self._store.exists(reading.queue)
            for reading in self._readings
        )

    async def poll(self) -> Outcome:
        """One poll, after the first discovery where that is still to be done."""
        began = time.monotonic()
        first = self._watched.queues is None
        try:
            with self._store.understanding():
                snapshot = await self._snapshot()
        except StoreUnavailable as error:
            if isinstance(error, StoreInvalidReply):
                # What was remembered from its earlier replies may be wrong as well.
                self._store.forget()
                self._collectors.forget()
            return Outcome(None, str(error), time.monotonic() - began)
        if first:
            self._log_changes((), self._watched.queues or ())
        self._complain_once(snapshot)
        return Outcome(snapshot, None, time.monotonic() - began)

    async def _snapshot(self) -> Snapshot:
        if (queues := self._watched.queues) is None:
            began = time.time()
            queues = self._choose(await self._discover(pace=0))
            self._note_search(queues, began)
        # Each call has a limit of its own. This one is for all of them together, so that what is
        # exposed is not old.
        limit = self._time_limit
        try:
            async with asyncio.timeout(limit):
                return await self._read(queues)
        except TimeoutError:
            raise StoreUnavailable(
                f"{self._store.address} answers too slowly: "
                f"a poll of {len(queues)} queues took over {limit:g} s"
            ) from None

    @property
    def _time_limit(self) -> float:
        """Seconds that a poll may take."""
        return max(self._settings.poll_interval, 2 * self._store.timeout)

    async def _read(self, known: tuple[Queue, ...]) -> Snapshot:
        readings = await self._store.poll(known, configured=self._watched.configured)
        self._readings = readings
        self._read_once.set()
        facts = await self._collectors.run_due(readings, seconds=self._time_limit / COLLECTOR_SHARE)
        return Snapshot(readings, facts, self._discovered, self._unwatched)

    async def _discover(self, pace: float) -> Findings:
        now = time.monotonic()
        everywhere = now >= self._search_everywhere_due or not self._watched.queues
        findings = await self._store.search(
            pace=pace, known=self._watched.queues or (), everywhere=everywhere
        )
        if everywhere:
            # An application that starts together with the exporter has not created all of its
            # queues yet.
            settled = self._started + PATIENCE_SECONDS
            later = now + SEARCH_EVERYWHERE_SECONDS
            self._search_everywhere_due = min(settled, later) if now < settled else later
            self._remark(findings)
        return findings

    def _remark(self, findings: Findings) -> None:
        """Log what is not watched, each remark once."""
        remarks = self._store.remarks_on(
            findings,
            named=self._watched.configured,
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
            with self._store.understanding():
                await self._search_for_named(SCAN_PACE)
        except StoreUnavailable as error:
            log.debug("cannot search for named queues", extra={"reason": str(error)})

    async def _search_for_named(self, pace: float) -> None:
        self._remark(await self._store.search_for_named(pace=pace))

    def _note_search(self, queues: tuple[Queue, ...], began: float) -> None:
        """Watch these from now on; they were found by a search that began then (epoch seconds)."""
        self._discovered, self._watched.searched_at = time.time(), int(1000 * began)
        self._watched.set(queues)

    def _choose(self, findings: Findings, alive: Iterable[Queue] = ()) -> tuple[Queue, ...]:
        """Return the queues to watch, and note how many are not watched."""
        queues = self._watched.choose(findings.queues, alive)
        left_out = self._watched.left_out
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
        interval, before = self._settings.discovery_interval, self._watched.queues
        if before is None:
            return interval  # the first search is the poll's
        began = time.time()
        try:
            with self._store.understanding():
                found = await self._discover(SCAN_PACE)
        except StoreUnavailable as error:
            # Polls report an outage, even if the search notices it first. But SCAN may be refused
            # or take too long while everything else works.
            self._search_failures += 1
            lasts = isinstance(error, StoreRefused | StoreInvalidReply) or self._search_failures > 1
            if self._search_refused is None and self._up and lasts:
                _log(not_searched(str(error)))
                self._search_refused = str(error)
            return interval
        self._search_failures = 0
        if self._search_refused is not None:
            log.info("queues can be searched for again")
            self._search_refused = None
        # A scan that is interrupted by a reconnect to another server misses queues, so those that
        # the last poll still found stay.
        await self._request_priority.yield_to_requests()
        queues = self._choose(found, [reading.queue for reading in self._readings])
        self._note_search(queues if queues != before else before, began)
        if queues != before:
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
                log.info(f"{self._store.kind} is back", extra={"failed_polls": self._failures})
            self._failures, self._outage_reasons = 0, set()
            # At most half of the time goes into polls.
            return max(self._settings.poll_interval - took, took)
        # Each reason is logged once per outage: a Redis that alternates between loading and being
        # busy would fill the log.
        reasons = self._outage_reasons
        if outcome.error not in reasons and len(reasons) < MAX_OUTAGE_REASONS:
            reasons.add(outcome.error)
            log.error(f"{self._store.kind} is unavailable", extra={"reason": outcome.error})
        self._failures += 1
        self._collectors.expire()
        max_pause = max(self._settings.poll_interval, MAX_RETRY_SECONDS)
        await asyncio.sleep(retry_pause(self._failures, max_pause))
        return 0.0

    async def _rest(self, seconds: float) -> None:
        """Wait until the next poll is due, or until a new queue is found."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._queues_changed.wait()
        self._queues_changed.clear()

    async def _rest_search(self, seconds: float) -> None:
        """Wait until the next search is due, or until there is a sign of a new queue."""
        least = min(seconds, MIN_SEARCH_INTERVAL_SECONDS)
        await asyncio.sleep(least)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds - least):
                await self._store.sign_of_new_queue()

    def _complain_once(self, snapshot: Snapshot) -> None:
        """Log each value that has become unreadable, at most MAX_COMPLAINTS per poll."""
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


def watched_queues(settings: Settings) -> WatchedQueues:
    """The queues that these settings name, before the first discovery."""
    configured = (
        Queue.named(prefix, name)
        for prefix in settings.plain_prefixes
        for name in settings.plain_queues
    )
    return WatchedQueues(configured, limit=settings.max_queues, named=not settings.has_search)
