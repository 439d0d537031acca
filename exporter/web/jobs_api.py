"""Open Archiver's Jobs API, and what the page needs beyond it: routes and handlers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager
from typing import Any, NamedTuple, TypeVar

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from exporter.collect.target import Target
from exporter.queues.errors import StoreRefused, StoreUnavailable
from exporter.queues.failures import Group, Groups, fold_reason
from exporter.queues.job_detail import JobDetail
from exporter.queues.jobs import BULKY, Job, Page
from exporter.queues.queue import Queue, State
from exporter.queues.text import shorten, text
from exporter.stores.base import JobReader, Scan
from exporter.web import serializers
from exporter.web.parameters import (
    choice,
    duration,
    parameter,
    raw_parameter,
    raw_rest,
    short_text,
    whole_number,
)
from exporter.web.redaction import Redaction
from exporter.web.responses import Busy, NotFound, json_response

MAX_LIMIT = 1000
# Far beyond any queue, and `page * limit` is still a valid index for Redis.
MAX_PAGE = 1_000_000_000
LOG_PAGE_LINES = 100  # a page
# Maximum number of scans of all jobs of a status at once, and how long (seconds) another one waits.
SCANS = 2
SCAN_WAIT = 5.0
# States in which a job may wait for its next attempt, the maximum number of jobs of each that are
# examined (the next ones), and the time limit for all of them in seconds.
RETRYING = (State.DELAYED, State.WAITING, State.PRIORITIZED, State.PAUSED)
RETRYING_JOBS = 1000
RETRYING_SECONDS = 1.0
# The time limit of Redis for one answer, in multiples of the largest `redis.timeout`; the time
# limit of a search is added.
REQUEST_TIMEOUTS = 3
# The key of a request's time limit.
LIMIT = web.RequestKey("limit", asyncio.Timeout)


Found = TypeVar("Found")


class Place(NamedTuple):
    """A queue, and the target that it is in."""

    target: Target
    queue: Queue

    @property
    def reader(self) -> JobReader:
        return self.target.reader


class JobsApi:
    """The handlers of the Jobs API. Each reads the store again."""

    def __init__(
        self,
        targets: Sequence[Target],
        redaction: Redaction,
        *,
        search_seconds: float,
    ) -> None:
        self._targets = targets
        self._has_prefix_patterns = any(each.settings.has_prefix_patterns for each in targets)
        self._prefixes = list(
            dict.fromkeys(prefix for target in targets for prefix in target.settings.plain_prefixes)
        )
        self._redaction = redaction
        self._search_seconds = search_seconds
        self._scans = asyncio.Semaphore(SCANS)

    @property
    def prefixes(self) -> list[str] | None:
        """The prefixes that a request may name; None if some are patterns, which allows any."""
        return None if self._has_prefix_patterns else self._prefixes

    @property
    def targets(self) -> list[str]:
        """The names of the targets; empty for a single target without a name."""
        return [target.name for target in self._targets if target.name is not None]

    @property
    def routes(self) -> tuple[tuple[str, Handler], ...]:
        queue = r"/v1/jobs/queues/{queue:[^/]+}"
        routes = (
            ("/v1/jobs/queues", self.list_queues),
            (queue, self.list_jobs),
            (f"{queue}/failures", self.list_failures),
            (f"{queue}/schedulers", self.list_schedulers),
            (f"{queue}/jobs/{{id:(?s:.+)}}", self.show_job),
            ("/v1/jobs/keys/{key:(?s:.+)}", self.find_key),
        )
        return tuple((path, self._limited(handler)) for path, handler in routes)

    def _limited(self, handler: Handler) -> Handler:
        """The handler with one time limit, however many reads its answer needs."""
        slowest = max(target.timeout for target in self._targets)
        seconds = REQUEST_TIMEOUTS * slowest

        async def limited(request: web.Request) -> web.StreamResponse:
            try:
                async with asyncio.timeout(seconds) as limit:
                    request[LIMIT] = limit
                    return await handler(request)
            except TimeoutError:
                raise StoreUnavailable("The store answered too slowly for one request") from None

        return limited

    async def list_queues(self, request: web.Request) -> web.Response:
        """Every queue with its counts; with `detail`, its ages and limits as well."""
        detailed = _is_detailed(request)
        targets = self._asked(request)
        found = await asyncio.gather(
            *(self._queues_of(target, detailed=detailed) for target in targets),
            return_exceptions=True,
        )
        queues, unread = [], []
        for target, result in zip(targets, found, strict=True):
            if isinstance(result, StoreUnavailable):
                unread.append({"target": target.name, "message": result.public})
            elif isinstance(result, BaseException):
                raise result
            else:
                queues += result
        if len(unread) == len(targets):
            raise next(result for result in found if isinstance(result, StoreUnavailable))
        # With a single target the error is the whole answer.
        return json_response({"queues": queues} | ({"unavailable": unread} if unread else {}))

    async def _queues_of(self, target: Target, *, detailed: bool) -> list[dict[str, Any]]:
        return [
            self._name(Place(target, reading.queue))
            | {"counts": serializers.counts(reading.counts)}
            | (serializers.reading(reading) if detailed else {})
            for reading in await target.reader.read_queues()
        ]

    async def list_jobs(self, request: web.Request) -> web.Response:
        """One page of a queue's jobs of one status, or of the search results among them.

        With `detail`, the same details as in the list of queues.
        """
        detailed = _is_detailed(request)
        status = State(choice(request, "status", [state.value for state in State], "failed"))
        newest_first = choice(request, "order", ["asc", "desc"], "asc") == "desc"
        page = whole_number(request, "page", 1, MAX_PAGE)
        limit = whole_number(request, "limit", 10, MAX_LIMIT)
        brief = choice(request, "brief", ["true", "false"], "false") == "true"
        without = BULKY if brief else ()
        start = (page - 1) * limit
        if (wanted := self._wanted(request)) is None:
            place, found = await self._page(
                request,
                status,
                start=start,
                limit=limit,
                newest_first=newest_first,
                without=without,
            )
            jobs: Sequence[Job] = found.jobs
            counts, total = found.counts, found.counts.get(status)
            search = await self._missing(place, found.missing)
        else:
            async with self._scanning(request, status, newest_first=newest_first) as (place, scan):
                ids, total = await self._pick(scan, wanted, start, start + limit)
            counts = scan.counts
            # Read once more, because all jobs that match a search would be more than a page may
            # hold.
            jobs = await place.reader.read_jobs(place.queue, status, ids, without=without)
            search = {"search": {"seen": scan.seen, "complete": scan.complete}}
        return json_response(
            self._name(place)
            | (await _detail_of(place) if detailed else {})
            | {
                "counts": serializers.counts(counts),
                "jobs": [serializers.job(job, brief=brief) async for job in self._redacted(jobs)],
                "pagination": {
                    "currentPage": page,
                    "totalPages": None if total is None else math.ceil(total / limit),
                    "totalJobs": total,
                    "limit": limit,
                },
            }
            | search
        )

    async def _missing(self, place: Place, number: int) -> dict[str, Any]:
        """The number of jobs of a page without data, and Redis's policy when it is full."""
        if not number:
            return {"missing": 0}
        policy = await place.reader.read_eviction_policy()
        return {"missing": number, "maxmemoryPolicy": policy}

    async def list_failures(self, request: web.Request) -> web.Response:
        """A queue's failures, grouped by what went wrong: those of kept jobs, and others that were
        seen.
        """
        window = duration(request, "window")
        limit = whole_number(request, "limit", 50, MAX_LIMIT)
        fingerprint = parameter(request, "fingerprint") or None
        found = Groups(None if window is None else int((time.time() - window) * 1000))
        async with self._scanning(request, State.FAILED, newest_first=True) as (place, scan):
            async with aclosing(self._redacted(scan.jobs())) as jobs:
                ended = await found.add_failed(jobs)
            all_retrying = await self._add_retrying(found, place, scan.counts)
            seen = place.target.seen_failures(place.queue)
            found.add_seen(seen.reasons if seen else ())
            groups = [
                group
                for group in found.all()
                if fingerprint is None or group.reason.fingerprint == fingerprint
            ]
            for group in groups[:limit]:
                if group.seen is not None:
                    group.show_seen(await self._redaction.reason(group.seen))
            kept = await self._kept_jobs(place, groups[:limit])
        return json_response(
            self._name(place)
            | {
                "window": window,
                "seen": scan.seen,
                "complete": scan.complete or ended,
                "seenSince": seen and seen.since,
                "failed": sum(group.count for group in groups),
                "willBeRetried": sum(group.retrying for group in groups),
                "willBeRetriedComplete": all_retrying,
                "groupsTotal": len(groups),
                "groups": [serializers.group(group, kept) for group in groups[:limit]],
            }
        )

    async def _add_retrying(
        self, groups: Groups, place: Place, counts: Mapping[State, int]
    ) -> bool:
        """Add the jobs that will be retried; return whether all were examined."""
        loop = asyncio.get_running_loop()
        end, complete = loop.time() + RETRYING_SECONDS, True
        for state in RETRYING:
            if counts.get(state) == 0:
                continue
            scan = place.reader.scan(place.queue, state, newest_first=False)

            async def next_jobs(scan: Scan = scan) -> AsyncGenerator[Job, None]:
                async with aclosing(self._redacted(scan.jobs())) as jobs:
                    async for job in jobs:
                        yield job
                        if scan.seen >= RETRYING_JOBS or loop.time() > end:
                            return

            async with aclosing(next_jobs()) as jobs:
                await groups.add_retrying(jobs)
            complete = complete and scan.complete
        return complete

    async def _kept_jobs(self, place: Place, groups: Iterable[Group]) -> set[bytes]:
        """Which of the jobs that were seen to fail for these reasons still exist."""
        ids = {job.raw_id for group in groups if group.seen for job in group.seen.jobs}
        return await place.reader.existing(place.queue, list(ids)) if ids else set()

    async def list_schedulers(self, request: web.Request) -> web.Response:
        """One page of a queue's schedulers, the next to run first."""
        page = whole_number(request, "page", 1, MAX_PAGE)
        limit = whole_number(request, "limit", 100, MAX_LIMIT)
        place, _ = await self._page(request, State.FAILED, start=0, limit=1, newest_first=True)
        total, schedulers = await place.reader.read_schedulers(
            place.queue, start=(page - 1) * limit, limit=limit
        )
        now = int(time.time() * 1000)
        return json_response(
            self._name(place)
            | {
                "schedulers": [serializers.scheduler(each, now) for each in schedulers],
                "pagination": {
                    "currentPage": page,
                    "totalPages": None if total is None else math.ceil(total / limit),
                    "totalSchedulers": total,
                    "limit": limit,
                },
            }
        )

    async def show_job(self, request: web.Request) -> web.Response:
        """One job in full, with a page of its logs."""
        logs_page = whole_number(request, "logsPage", 1, MAX_PAGE)
        raw_id = raw_parameter(request, "id")
        if raw_id is None:
            raw_id = raw_rest(request)

        async def read(place: Place) -> JobDetail | None:
            return await place.reader.read_job(
                place.queue,
                raw_id,
                first_log=(logs_page - 1) * LOG_PAGE_LINES,
                logs=LOG_PAGE_LINES,
                prefixes=self._prefixes,
            )

        if (result := await _first(self._places(request), read)) is not None:
            place, found = result[0], await self._redaction.detail(result[1])
            logs = {
                "lines": found.log_lines,
                "total": found.log_total,
                "page": logs_page,
                "totalPages": math.ceil(found.log_total / LOG_PAGE_LINES),
            }
            job = serializers.detail(found, with_prefix=self._several)
            return json_response(self._name(place) | {"job": job | {"logs": logs}})
        raise NotFound(
            f"Job {shorten(text(raw_id))} of queue {self._queue_name(request)} not found: it was "
            "removed, or never existed"
        )

    async def find_key(self, request: web.Request) -> web.Response:
        """The queue and id of the job with a BullMQ key, as exemplars name jobs."""
        raw_key = raw_rest(request)
        targets, plain = self._targets, raw_key
        # An exemplar of one of several targets has its name before the key.
        named, _, rest = raw_key.partition(b"/")
        if text(named) in self.targets:
            targets, plain = [target for target in targets if target.name == text(named)], rest
        ids = {
            Place(target, queue): raw_id
            for target in targets
            for queue, raw_id in target.reader.jobs_of_key(plain)
        }

        async def find(place: Place) -> bytes | None:
            return await place.reader.find_job(place.queue, ids[place])

        if (result := await _first(ids, find)) is not None:
            place, raw_id = result
            return json_response(self._name(place) | serializers.job_id(raw_id))
        key = shorten(text(raw_key))
        raise NotFound(f"There is no job {key}: it was removed, or its queue is not watched")

    @property
    def _several(self) -> bool:
        """Whether a queue's name may be ambiguous."""
        return len(self._prefixes) > 1 or self._has_prefix_patterns

    def _name(self, place: Place) -> dict[str, Any]:
        queue, target = place.queue, place.target.name
        return (
            {"name": queue.name}
            | ({"prefix": queue.prefix} if self._several else {})
            | ({} if target is None else {"target": target})
        )

    def _wanted(self, request: web.Request) -> Callable[[Job], bool] | None:
        """A predicate for the requested jobs; None if all are requested."""
        name = parameter(request, "name") or None
        text = short_text(request, "text")
        fingerprint = parameter(request, "fingerprint") or None
        window = duration(request, "window")
        if not (name or text or fingerprint or window):
            return None
        sought = (text or "").lower()
        since = 0 if window is None else (time.time() - window) * 1000

        def wanted(job: Job) -> bool:
            return (
                (name is None or job.name == name)
                and (window is None or (job.finished_on or 0) >= since)
                and (fingerprint is None or fold_reason(job).fingerprint == fingerprint)
                and (not sought or sought in _all_text(job))
            )

        return wanted

    async def _redacted(
        self, jobs: Iterable[Job] | AsyncGenerator[Job, None]
    ) -> AsyncGenerator[Job, None]:
        """The redacted jobs: hidden values are not shown, grouped or searched."""
        if isinstance(jobs, Iterable):
            for job in jobs:
                if self._redaction.hides:
                    await asyncio.sleep(0)  # let other requests run
                yield await self._redaction.job(job)
        else:
            async with aclosing(jobs):
                async for job in jobs:
                    yield await self._redaction.job(job)

    async def _pick(
        self, scan: Scan, wanted: Callable[[Job], bool], start: int, end: int
    ) -> tuple[list[bytes], int]:
        """The ids of the wanted jobs from `start` to `end`, and the number of all wanted jobs."""
        picked: list[bytes] = []
        found = 0
        async with aclosing(self._redacted(scan.jobs())) as jobs:
            async for job in jobs:
                # Searching a batch takes long, so let other requests run.
                await asyncio.sleep(0)
                if wanted(job):
                    if start <= found < end:
                        picked.append(job.raw_id)
                    found += 1
        return picked, found

    @asynccontextmanager
    async def _scanning(
        self, request: web.Request, status: State, *, newest_first: bool
    ) -> AsyncIterator[tuple[Place, Scan]]:
        """A scan of all jobs of a status. Raises NotFound, and Busy while other scans run."""
        place, _ = await self._page(request, status, start=0, limit=1, newest_first=newest_first)
        limit = request[LIMIT]
        seconds = SCAN_WAIT + self._search_seconds + RETRYING_SECONDS
        limit.reschedule((limit.when() or 0.0) + seconds)
        try:
            async with asyncio.timeout(SCAN_WAIT):
                await self._scans.acquire()
        except TimeoutError:
            raise Busy("Other searches are running, try again in a few seconds") from None
        scan = place.reader.scan(place.queue, status, newest_first=newest_first)
        try:
            with place.reader.understanding():
                yield place, scan
        finally:
            self._scans.release()

    async def _page(self, request: web.Request, status: State, **page: Any) -> tuple[Place, Page]:
        """The page and its queue. Raises NotFound if there is no such queue."""

        async def read(place: Place) -> Page | None:
            return await place.reader.read_page(place.queue, status, **page)

        if (result := await _first(self._places(request), read)) is not None:
            return result
        raise NotFound(f"Queue {self._queue_name(request)} not found")

    def _queue_name(self, request: web.Request) -> str:
        """The name in the path, or the one in the query, since browsers resolve `.` and `..`."""
        named: str = parameter(request, "queue") or request.match_info["queue"]
        return named

    def _asked(self, request: web.Request) -> Sequence[Target]:
        """The requested targets. Raises BadRequest."""
        if not self.targets:
            return self._targets
        wanted = choice(request, "target", self.targets, None)
        return [target for target in self._targets if wanted in (None, target.name)]

    def _places(self, request: web.Request) -> list[Place]:
        """The places where the requested queue may be. Raises BadRequest."""
        name = self._queue_name(request)
        if self.prefixes is None:
            prefix = parameter(request, "prefix") or None
        else:
            prefix = choice(request, "prefix", self.prefixes, None)
        targets = self._asked(request)
        watched = [
            Place(target, queue)
            for target in targets
            for queue in target.reader.find_watched(name, prefix)
        ]
        return watched or [
            Place(target, queue)
            for target in targets
            for queue in target.reader.find_new(name, prefix)
        ]


def _is_detailed(request: web.Request) -> bool:
    given: str = choice(request, "detail", ["true", "false"], "false")
    return given == "true"


async def _detail_of(place: Place) -> dict[str, Any]:
    """The reading of the queue beyond its counts. Raises StoreUnavailable."""
    return serializers.reading(await place.reader.read_queue(place.queue))


async def _first(
    places: Iterable[Place], read: Callable[[Place], Awaitable[Found | None]]
) -> tuple[Place, Found] | None:
    """The first place for which `read` finds something. All targets are asked at once.

    Raises StoreUnavailable if that cannot be known because a place does not answer.
    """
    by_target: dict[Target, list[Place]] = {}
    for place in places:
        by_target.setdefault(place.target, []).append(place)
    asked = [
        asyncio.create_task(_first_of(target, some, read)) for target, some in by_target.items()
    ]
    problem: StoreUnavailable | None = None
    try:
        for each in asked:
            try:
                if (found := await each) is not None:
                    return found
            except StoreUnavailable as error:
                problem = error
    finally:
        for each in asked:
            each.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    if problem is not None:
        raise problem
    return None


async def _first_of(
    target: Target, places: Iterable[Place], read: Callable[[Place], Awaitable[Found | None]]
) -> tuple[Place, Found] | None:
    """The same for the places in one target, which are asked one after the other."""
    problem: StoreRefused | None = None
    async with target.reader.answering():
        for place in places:
            try:
                found = await read(place)
            except StoreRefused as error:
                problem = error  # the ACL user may not read one of several prefixes
                continue
            if found is not None:
                return place, found
    if problem is not None:
        raise problem
    return None


def _all_text(job: Job) -> str:
    """All text of a job that a search looks at."""
    parts = (job.data, job.return_value)
    written = "\n".join(orjson.dumps(part).decode() for part in parts)
    return "\n".join((job.id, job.name, job.failed_reason or "", written)).lower()
