"""Open Archiver's Jobs API and what the page needs beyond it: the routes and what they take."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from exporter.bullmq.connection import RedisReader, RedisUnavailable
from exporter.bullmq.failures import fault_of, grouped
from exporter.bullmq.job_detail import read_job
from exporter.bullmq.jobs import BULKY, Job, Limits, Page, Scan, read_jobs, read_page
from exporter.bullmq.keys import JobKey, Queue, State
from exporter.bullmq.poll import poll
from exporter.bullmq.watcher import Watcher
from exporter.web import shown
from exporter.web.answers import Busy, NotFound, json_response
from exporter.web.parameters import choice, duration, parameter, short_text, whole_number

MAX_LIMIT = 1000
# Far beyond any queue, and `page * limit` still is an index that Redis can take.
MAX_PAGE = 1_000_000_000
LOG_LINES = 100  # a page
# Readings of all jobs of a status that may go on at once; how long (seconds) a further one waits.
SCANS = 2
SCAN_WAIT = 5.0


class JobsApi:
    """The handlers of the Jobs API; each reads Redis anew."""

    def __init__(
        self,
        redis: RedisReader,
        watcher: Watcher,
        prefixes: Sequence[str],
        redaction: shown.Redaction,
        limits: Limits,
    ) -> None:
        self._redis = redis
        self._watcher = watcher
        self.prefixes = prefixes
        self._redaction = redaction
        self._limits = limits
        self._scans = asyncio.Semaphore(SCANS)

    @property
    def routes(self) -> tuple[tuple[str, Handler], ...]:
        queue = r"/v1/jobs/queues/{queue:[^/]+}"
        return (
            ("/v1/jobs/queues", self.list_queues),
            (queue, self.list_jobs),
            (f"{queue}/failures", self.list_failures),
            (f"{queue}/jobs/{{id:.+}}", self.show_job),
            ("/v1/jobs/keys/{key:.+}", self.find_key),
        )

    async def list_queues(self, request: web.Request) -> web.Response:
        """Every queue with its counts; with `detail`, since when its jobs wait and run as well."""
        detailed = choice(request, "detail", ["true", "false"], "false") == "true"
        queues = self._watcher.queues
        if queues is None:
            raise RedisUnavailable("the first discovery is not done")
        readings = await poll(
            self._redis,
            queues,
            max_schedulers=0,
            configured=self._watcher.configured,
        )
        return json_response(
            {
                "queues": [
                    self._name(reading.queue)
                    | {"counts": shown.counts(reading.counts)}
                    | (shown.reading(reading) if detailed else {})
                    for reading in readings
                ]
            }
        )

    async def list_jobs(self, request: web.Request) -> web.Response:
        """One page of a queue's jobs of one status, or of those among them that are looked for."""
        status = State(choice(request, "status", [state.value for state in State], "failed"))
        newest_first = choice(request, "order", ["asc", "desc"], "asc") == "desc"
        page = whole_number(request, "page", 1, MAX_PAGE)
        limit = whole_number(request, "limit", 10, MAX_LIMIT)
        brief = choice(request, "brief", ["true", "false"], "false") == "true"
        without = BULKY if brief else ()
        start = (page - 1) * limit
        if (wanted := self._wanted(request)) is None:
            queue, found = await self._page(
                request,
                status,
                start=start,
                limit=limit,
                newest_first=newest_first,
                without=without,
            )
            jobs: Sequence[Job] = found.jobs
            counts, total = found.counts, found.counts.get(status)
            search = {}
        else:
            async with self._scanning(request, status, newest_first=newest_first) as scan:
                ids, total = await _pick(scan, wanted, start, start + limit)
            queue, counts = scan.queue, scan.counts
            # Read once more: all that fits a search would be more than a page may hold.
            jobs = await read_jobs(
                self._redis, queue, status, ids, limits=self._limits, without=without
            )
            search = {"search": {"seen": scan.seen, "complete": scan.complete}}
        return json_response(
            self._name(queue)
            | {
                "counts": shown.counts(counts),
                "jobs": [shown.job(job, self._redaction, brief=brief) for job in jobs],
                "pagination": {
                    "currentPage": page,
                    "totalPages": None if total is None else math.ceil(total / limit),
                    "totalJobs": total,
                    "limit": limit,
                },
            }
            | search
        )

    async def list_failures(self, request: web.Request) -> web.Response:
        """A queue's failed jobs, grouped by what went wrong."""
        window = duration(request, "window")
        limit = whole_number(request, "limit", 50, MAX_LIMIT)
        since = None if window is None else int((time.time() - window) * 1000)
        async with self._scanning(request, State.FAILED, newest_first=True) as scan:
            async with aclosing(scan.jobs()) as jobs:
                groups, ended = await grouped(jobs, since=since)
            queue = scan.queue
        return json_response(
            self._name(queue)
            | {
                "window": window,
                "seen": scan.seen,
                "complete": scan.complete or ended,
                "failed": sum(group.count for group in groups),
                "groupsTotal": len(groups),
                "groups": [shown.group(group, self._redaction) for group in groups[:limit]],
            }
        )

    async def show_job(self, request: web.Request) -> web.Response:
        """One job in full, with a page of its logs."""
        logs_page = whole_number(request, "logsPage", 1, MAX_PAGE)
        job_id = request.match_info["id"]
        for queue in self._candidates(request):
            found = await read_job(
                self._redis,
                queue,
                job_id,
                first_log=(logs_page - 1) * LOG_LINES,
                logs=LOG_LINES,
                prefixes=self.prefixes,
                limits=self._limits,
            )
            if found is None:
                continue
            logs = {
                "lines": found.log_lines,
                "total": found.log_total,
                "page": logs_page,
                "totalPages": math.ceil(found.log_total / LOG_LINES),
            }
            job = shown.detail(found, self._redaction, with_prefix=self._several)
            return json_response(self._name(queue) | {"job": job | {"logs": logs}})
        raise NotFound(
            f"Job {job_id} of queue {request.match_info['queue']} not found: it was removed, or "
            "never there"
        )

    async def find_key(self, request: web.Request) -> web.Response:
        """Which queue's job a BullMQ key is: exemplars name jobs so."""
        key = request.match_info["key"]
        prefix, name, job_id = JobKey.parsed(key, self.prefixes)
        for queue in self._watcher.queues or ():
            if (queue.prefix, queue.name) == (prefix, name) and job_id:
                raw = queue.job_key(job_id.encode("utf-8", "replace"))
                if await self._redis.command("EXISTS", raw):
                    return json_response(self._name(queue) | {"id": job_id})
        raise NotFound(f"There is no job {key}: it was removed, or its queue is not watched")

    @property
    def _several(self) -> bool:
        """Whether a queue's name alone does not say which one it is."""
        return len(self.prefixes) > 1

    def _name(self, queue: Queue) -> dict[str, Any]:
        return {"name": queue.name} | ({"prefix": queue.prefix} if self._several else {})

    def _wanted(self, request: web.Request) -> Callable[[Job], bool] | None:
        """Whether a job is looked for; None where all are."""
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
                and (fingerprint is None or fault_of(job).fingerprint == fingerprint)
                and (not sought or sought in self._all_text(job))
            )

        return wanted

    def _all_text(self, job: Job) -> str:
        """What a text is looked for in: only what may be shown."""
        parts = (self._redaction.of(job.data), self._redaction.of(job.return_value))
        written = "\n".join(orjson.dumps(part).decode() for part in parts)
        return "\n".join((job.id, job.name, job.failed_reason or "", written)).lower()

    @asynccontextmanager
    async def _scanning(
        self, request: web.Request, status: State, *, newest_first: bool
    ) -> AsyncIterator[Scan]:
        """A reading of all jobs of a status. Raises NotFound, and Busy where others go on."""
        queue, _ = await self._page(request, status, start=0, limit=1, newest_first=newest_first)
        try:
            async with asyncio.timeout(SCAN_WAIT):
                await self._scans.acquire()
        except TimeoutError:
            raise Busy("Others search at this moment, try again in a few seconds") from None
        try:
            yield Scan(self._redis, queue, status, newest_first=newest_first, limits=self._limits)
        finally:
            self._scans.release()

    async def _page(self, request: web.Request, status: State, **page: Any) -> tuple[Queue, Page]:
        """The page, and which queue it is of. Raises NotFound for a queue that is not there."""
        for queue in self._candidates(request):
            found = await read_page(self._redis, queue, status, limits=self._limits, **page)
            if found.exists or queue in self._watcher.configured:
                return queue, found
        raise NotFound(f"Queue {request.match_info['queue']} not found")

    def _candidates(self, request: web.Request) -> list[Queue]:
        name = request.match_info["queue"]
        prefix = choice(request, "prefix", list(self.prefixes), None)
        prefixes = [prefix] if prefix else list(self.prefixes)
        # By the name as it is shown: one that is not UTF-8 has no other way in.
        watched = [
            queue
            for queue in self._watcher.queues or ()
            if queue.name == name and queue.prefix in prefixes
        ]
        if watched or self._watcher.configured or not name or ":" in name:
            return watched
        # Made since the last discovery, perhaps.
        return [Queue.named(each, name.encode("utf-8", "replace")) for each in prefixes]


async def _pick(
    scan: Scan, wanted: Callable[[Job], bool], start: int, end: int
) -> tuple[list[bytes], int]:
    """The ids from `start` to `end` of the jobs that are wanted, and how many these are in all."""
    picked: list[bytes] = []
    found = 0
    async with aclosing(scan.jobs()) as jobs:
        async for job in jobs:
            # Looking through a batch takes long enough that others should have their turn.
            await asyncio.sleep(0)
            if wanted(job):
                if start <= found < end:
                    picked.append(job.raw_id)
                found += 1
    return picked, found
