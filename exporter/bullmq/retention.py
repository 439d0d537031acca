"""How many finished jobs an application keeps: ceilings of `completed` and `failed`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from exporter.bullmq.batches import batched
from exporter.bullmq.connection import RedisReader, scored
from exporter.bullmq.keys import Queue, State
from exporter.bullmq.options import read_options
from exporter.bullmq.worker_clock import CompareClock

# The option of a job that bounds each state (BullMQ: KeepJobs).
OPTIONS = {State.COMPLETED: "removeOnComplete", State.FAILED: "removeOnFail"}
BATCH = 200


async def learn_retention(
    redis: RedisReader,
    queues: Sequence[Queue],
    configured: Mapping[State, int],
    compare_clock: CompareClock = lambda *_: None,
) -> dict[Queue, Mapping[State, int]]:
    """The ceilings by queue and state: `configured`, else what the newest finished job asks for.

    BullMQ keeps no retention for a queue; each job brings its own in its options. Raises
    RedisUnavailable.
    """
    learned: dict[Queue, Mapping[State, int]] = {}
    for batch in batched(queues, BATCH):
        places = [(queue, state) for queue in batch for state in OPTIONS if state not in configured]
        newest = await redis.pipeline(
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
            compare_clock(queue, state, job_id, finished)
        options = await read_options(redis, [queue.job_key(job_id) for queue, _, job_id, _ in jobs])
        for queue in batch:
            learned[queue] = dict(configured)
        for (queue, state, *_), raw in zip(jobs, options, strict=True):
            limit = _limit(raw, OPTIONS[state])
            if limit is not None:
                learned[queue] = {**learned[queue], state: limit}
    return learned


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
