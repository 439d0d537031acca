"""How many finished jobs an application keeps: ceilings of `completed` and `failed`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import orjson

from exporter.bullmq.batches import batched
from exporter.bullmq.connection import RedisReader, scored
from exporter.bullmq.keys import Queue, State
from exporter.bullmq.options import read_options
from exporter.bullmq.rounds import Rounds
from exporter.bullmq.worker_clock import CompareClock

# The option of a job that bounds each state (BullMQ: KeepJobs).
OPTIONS = {State.COMPLETED: "removeOnComplete", State.FAILED: "removeOnFail"}
BATCH_SIZE = 200


class RetentionReader:
    """Reads the ceilings of each queue by state: `configured`, otherwise what the newest finished
    job asks for.

    BullMQ keeps no retention for a queue; each job brings its own in its options.
    """

    def __init__(
        self, redis: RedisReader, configured: Mapping[State, int], compare_clock: CompareClock
    ) -> None:
        self._redis, self._configured, self._compare_clock = redis, configured, compare_clock
        self._rounds: Rounds[Mapping[State, int]] = Rounds()

    async def read(
        self, queues: Sequence[Queue], *, seconds: float
    ) -> Mapping[Queue, Mapping[State, int]]:
        """What is known of these queues after a round. Raises RedisUnavailable."""
        batches = partial(batched, size=BATCH_SIZE)
        return await self._rounds.read(queues, batches, self._read_batch, seconds=seconds)

    async def _read_batch(self, queues: Sequence[Queue]) -> dict[Queue, Mapping[State, int]]:
        places = [
            (queue, state) for queue in queues for state in OPTIONS if state not in self._configured
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
            if (limit := _limit(raw, OPTIONS[state])) is not None:
                learned[queue][state] = limit
        return dict(learned)


def _limit(raw: Any, option: str) -> int | None:
    """`removeOnFail: 5000` or `{count: 5000}`; `true` keeps none; an age alone is no ceiling."""
    try:
        keep = orjson.loads(raw).get(option)
    except (orjson.JSONDecodeError, AttributeError, TypeError):
        return None
    if isinstance(keep, dict):
        keep = keep.get("count")
    if isinstance(keep, bool):
        return 0 if keep else None
    return keep if isinstance(keep, int) and keep >= 0 else None
