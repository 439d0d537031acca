"""One poll: counts, ages, schedulers and heartbeats of all queues."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from exporter.bullmq.connection import RedisReader, RedisRefused, Script
from exporter.bullmq.keys import Queue, State, text
from exporter.bullmq.snapshot import QueueReading

POLL = Script("poll.lua")

# A script holds Redis until it ends. Measured on Redis 7.0 with jobs in every state of every queue:
# 25 queues hold it 1.0 ms, 50 hold it 1.9 ms (p99.9 1.1 and 2.1); fewer cost more round trips.
BATCH = 25

# A delayed job's score is its due time in ms, times this, plus a counter (BullMQ: addDelayedJob).
DELAYED_SCORE_UNIT = 4096

# The last millisecond that JavaScript can count: Number.MAX_SAFE_INTEGER.
LATEST = 2**53 - 1


async def poll(
    redis: RedisReader,
    queues: Sequence[Queue],
    *,
    max_schedulers: int,
    configured: frozenset[Queue],
) -> tuple[QueueReading, ...]:
    """A reading of each queue that exists or is configured. Raises RedisUnavailable."""
    readings: list[QueueReading] = []
    if not queues:
        # A poll of no queues tells all the same whether Redis answers.
        await redis.command("PING")
    remaining = iter(queues)
    # One batch at a time: batches sent together are run together, and hold Redis for their sum.
    while batch := list(islice(remaining, BATCH)):
        rows = await redis.run(
            POLL,
            [queue.base for queue in batch],
            (
                max_schedulers,
                int(time.time() * 1000),
                # In a cluster they are elsewhere, and a script may not read what is not its slot's.
                *(queue.heartbeat_key if redis.slot is None else b"" for queue in batch),
            ),
        )
        for queue, row in zip(batch, rows, strict=True):
            # `meta` is gone when the queue is (Queue.obliterate).
            if row[0] or queue in configured:
                readings.append(_reading(queue, row))
    refused = [
        why
        for reading in readings
        for what, why in reading.unreadable
        if isinstance(what, State) and "WRONGTYPE" not in why
    ]
    # A right that is missing for one value leaves that one out; without any count it is no poll.
    if refused and not any(reading.counts for reading in readings):
        raise RedisRefused(f"Redis does not let the scripts read: {refused[0]}")
    return tuple(readings)


def counts_of(reply: Iterable[Any], unreadable: list[tuple[str, str]]) -> dict[State, int]:
    """The `counts` of layout.lua by state; a state that could not be read goes to `unreadable`."""
    counts: dict[State, int] = {}
    for state, count in zip(State, reply, strict=True):
        if isinstance(count, Exception):
            unreadable.append((state, str(count)))
        else:
            counts[state] = count
    return counts


def _reading(queue: Queue, row: Sequence[Any]) -> QueueReading:
    unreadable: list[tuple[str, str]] = []

    def readable(what: str, value: Any) -> Any:
        if isinstance(value, Exception):
            unreadable.append((what, str(value)))
            return None
        return value

    def number(what: str, value: Any) -> float | None:
        value = readable(what, value)
        if value is None:
            return None
        try:
            read = float(value)
        except ValueError:
            read = math.nan
        if math.isfinite(read):
            return read
        unreadable.append((what, f"{text(value)[:40]!r} is not a number"))
        return None

    def seconds(what: str, value: Any, unit: int = 1000) -> float | None:
        read = number(what, value)
        if read is None:
            return None
        # Milliseconds are whole: what a score holds behind them is a counter.
        milliseconds = read // (unit // 1000)
        if abs(milliseconds) <= LATEST:
            return milliseconds / 1000
        unreadable.append((what, f"{text(value)[:40]!r} is no time"))
        return None

    _, paused, counts, version, waiting, active, held, delayed, schedulers, runs, heartbeat = row
    paused = readable("paused", paused)
    version = readable("version", version)
    named_runs = zip(runs[::2], runs[1::2], strict=True)
    # By the name as it is shown: two samples with the same labels would be one too many.
    times = {text(name): seconds("scheduler", at) for name, at in named_runs}
    return QueueReading(
        queue=queue,
        counts=counts_of(counts, unreadable),
        paused=None if paused is None else bool(paused),
        version=None if version is None else text(version),
        oldest_waiting=seconds("oldest waiting", waiting),
        oldest_active=seconds("oldest active", active),
        oldest_active_locked=None if held is None else bool(held),
        next_delayed=seconds("next delayed", delayed, 1000 * DELAYED_SCORE_UNIT),
        schedulers=readable("schedulers", schedulers),
        scheduler_runs=tuple((name, at) for name, at in times.items() if at is not None),
        heartbeat=seconds("heartbeat", heartbeat),
        unreadable=tuple(unreadable),
    )
