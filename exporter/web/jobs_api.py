"""Open Archiver's Jobs API: the routes, what they take and what they answer."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from exporter.bullmq.connection import RedisReader, RedisUnavailable
from exporter.bullmq.jobs import Job, Page, read_page
from exporter.bullmq.keys import Queue, State
from exporter.bullmq.poll import poll
from exporter.bullmq.watcher import Watcher
from exporter.web.answers import BadRequest, NotFound, json_response

MAX_LIMIT = 1000
# Far beyond any queue, and `page * limit` still is an index that Redis can take.
MAX_PAGE = 1_000_000_000


class JobsApi:
    """The handlers of the Jobs API; each reads Redis anew."""

    def __init__(self, redis: RedisReader, watcher: Watcher, prefixes: Sequence[str]) -> None:
        self._redis = redis
        self._watcher = watcher
        self._prefixes = prefixes

    @property
    def routes(self) -> tuple[tuple[str, Handler], ...]:
        return (
            ("/v1/jobs/queues", self.list_queues),
            (r"/v1/jobs/queues/{queue:[^/]+}", self.list_jobs),
        )

    async def list_queues(self, _: web.Request) -> web.Response:
        """Every queue with its counts."""
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
                    self._name(reading.queue) | {"counts": _counts(reading.counts)}
                    for reading in readings
                ]
            }
        )

    async def list_jobs(self, request: web.Request) -> web.Response:
        """One page of a queue's jobs of one status."""
        status = State(_choice(request, "status", [state.value for state in State], "failed"))
        order = _choice(request, "order", ["asc", "desc"], "asc")
        page = _whole_number(request, "page", 1, MAX_PAGE)
        limit = _whole_number(request, "limit", 10, MAX_LIMIT)
        queue, found = await self._page(
            request.match_info["queue"],
            _choice(request, "prefix", list(self._prefixes), None),
            status,
            start=(page - 1) * limit,
            limit=limit,
            newest_first=order == "desc",
        )
        total = found.counts.get(status)
        return json_response(
            self._name(queue)
            | {
                "counts": _counts(found.counts),
                "jobs": [_job(job) for job in found.jobs],
                "pagination": {
                    "currentPage": page,
                    "totalPages": None if total is None else math.ceil(total / limit),
                    "totalJobs": total,
                    "limit": limit,
                },
            }
        )

    def _name(self, queue: Queue) -> dict[str, Any]:
        several = len(self._prefixes) > 1
        return {"name": queue.name} | ({"prefix": queue.prefix} if several else {})

    async def _page(
        self, name: str, prefix: str | None, status: State, **page: Any
    ) -> tuple[Queue, Page]:
        """The page, and which queue it is of. Raises NotFound for a queue that is not there."""
        for queue in self._candidates(name, prefix):
            found = await read_page(self._redis, queue, status, **page)
            if found.exists or queue in self._watcher.configured:
                return queue, found
        raise NotFound(f"Queue {name} not found")

    def _candidates(self, name: str, prefix: str | None) -> list[Queue]:
        prefixes = [prefix] if prefix else list(self._prefixes)
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


def _counts(counts: Mapping[State, int]) -> dict[str, int | None]:
    return {state.value: counts.get(state) for state in State}


def _job(job: Job) -> dict[str, Any]:
    data = job.data
    return {
        "id": job.id,
        "name": job.name,
        "data": data,
        "state": job.state,
        "failedReason": job.failed_reason,
        "timestamp": job.timestamp,
        "processedOn": job.processed_on,
        "finishedOn": job.finished_on,
        "attemptsMade": job.attempts_made,
        "stacktrace": job.stacktrace,
        "returnValue": job.return_value,
        "ingestionSourceId": data.get("ingestionSourceId") if isinstance(data, dict) else None,
        "error": job.failed_reason,
    }


def _parameter(request: web.Request, name: str) -> str | None:
    given = request.query.getall(name, [])
    if len(given) > 1:
        raise BadRequest(f"{name} is given {len(given)} times, and may be given once")
    return given[0] if given else None


def _choice(request: web.Request, name: str, allowed: list[str], default: str | None) -> Any:
    given = _parameter(request, name)
    if given is None:
        return default
    if given not in allowed:
        raise BadRequest(f"{name} must be one of {', '.join(allowed)}")
    return given


def _whole_number(request: web.Request, name: str, default: int, highest: int) -> int:
    given = _parameter(request, name)
    if given is None:
        return default
    if not re.fullmatch("[0-9]{1,12}", given) or not 1 <= int(given) <= highest:
        raise BadRequest(f"{name} must be a whole number from 1 to {highest}")
    return int(given)
