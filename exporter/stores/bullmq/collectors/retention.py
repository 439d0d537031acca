"""How many finished jobs an application keeps: limits of `completed` and `failed`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from exporter.queues.queue import Queue
from exporter.queues.retention import RETENTION_OPTIONS, kept_jobs
from exporter.queues.worker_clock import CompareClock
from exporter.settings import Settings
from exporter.stores.bullmq.options import read_options
from exporter.stores.redis.client import RedisReader, scored
from exporter.stores.retention import Ceilings, RetentionReads


class Retention(RetentionReads):
    """Reads the options of the newest finished jobs."""

    max_share = 1.0
    batch_size = 200

    def __init__(self, redis: RedisReader, settings: Settings, compare_clock: CompareClock) -> None:
        super().__init__(settings)
        self._redis, self._compare_clock = redis, compare_clock

    async def _read_batch(self, queues: Sequence[Queue]) -> dict[Queue, Ceilings]:
        places = [
            (queue, state)
            for queue in queues
            for state in RETENTION_OPTIONS
            if state not in self._configured
        ]
        newest = await self._redis.pipeline(
            [
                ("ZREVRANGE", queue.base + state.encode(), 0, 0, "WITHSCORES")
                for queue, state in places
            ]
        )
        jobs = [
            (queue, state, *scored(row)[0])
            for (queue, state), row in zip(places, newest, strict=True)
            if isinstance(row, list) and row
        ]
        for queue, state, job_id, finished in jobs:
            self._compare_clock(queue, state, job_id, finished)
        job_keys = [queue.job_key(job_id) for queue, _, job_id, _ in jobs]
        options = await read_options(self._redis, job_keys)
        learned = {queue: dict(self._configured) for queue in queues}
        for (queue, state, *_), raw in zip(jobs, options, strict=True):
            if (limit := _limit(raw, RETENTION_OPTIONS[state])) is not None:
                learned[queue][state] = limit
        return dict(learned)


def _limit(raw: Any, option: str) -> int | None:
    """The limit that a job's options set."""
    try:
        return kept_jobs(orjson.loads(raw).get(option))
    except (orjson.JSONDecodeError, AttributeError, TypeError):
        return None
