"""A follower in the process of the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import redis

from exporter.queues.queue import Queue
from exporter.queues.tallies import Count, FrozenTally, Tallies
from exporter.settings import EventsSettings, RedisSettings
from exporter.stores.bullmq.events import check_rounds
from exporter.stores.bullmq.events import follower as following
from exporter.stores.bullmq.events.follower import Follower
from exporter.stores.bullmq.keys import events_key
from exporter.stores.events import stale_jobs
from exporter.stores.redis.client import RedisReader

QUEUE = Queue.named("bull", "ingestion")


KEY = events_key(QUEUE)


START = 1_795_500_000_000


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks as often as there are reads, so that tests need not wait for them."""
    monkeypatch.setattr(check_rounds, "CHECK_INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(check_rounds, "CHECK_ALL_INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(stale_jobs, "EXISTS_INTERVAL_SECONDS", 0.2)
    monkeypatch.setattr(following, "PAUSE", 0.02)
    monkeypatch.setattr(following, "BLOCK", 0.1)


@asynccontextmanager
async def followed(
    port: int,
    *queues: Queue,
    watched: Callable[[], tuple[Queue, ...]] | None = None,
    **settings: Any,
) -> AsyncIterator[Callable[[Callable[[Tallies], Any]], Awaitable[Tallies]]]:
    """Follows the queues, or those that are `watched`, which may change; what is yielded waits
    until something is so, and gives the tallies.
    """
    reader = RedisReader(RedisSettings(host="127.0.0.1", port=port, timeout=2), connections=1)
    fixed = queues or (QUEUE,)
    following_now = watched or (lambda: fixed)
    follower = Follower(reader, EventsSettings(**settings), following_now, redis_timeout=2)
    task = asyncio.create_task(follower.run())

    async def until(check: Callable[[Tallies], Any]) -> Tallies:
        tallies = None
        for _ in range(3000):
            tallies = await follower.tallies()
            with suppress(KeyError):
                if tallies is not None and check(tallies):
                    return tallies
            assert not task.done(), task.exception()
            await asyncio.sleep(0.02)
        pytest.fail(f"not so within a minute: {tallies}")

    await until(lambda _: True)
    try:
        yield until
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await reader.close()


def write(client: redis.Redis, at: int, event: str, job_id: str = "1", **fields: str) -> None:
    """An entry as BullMQ writes it, `at` milliseconds after the start."""
    name = f"{START + at}-*"
    client.xadd(KEY, {"event": event, "jobId": job_id, **fields}, id=name)


def tally(tallies: Tallies, name: str = "import") -> FrozenTally:
    return tallies.queues[QUEUE].by_name[name]


def count(tallies: Tallies, what: Count, name: str = "import") -> int:
    return tally(tallies, name).values[what]


def durations(tallies: Tallies, which: str, name: str = "import") -> tuple[int, int]:
    """How many were observed, and their sum in ms."""
    layout = tallies.layout
    bounds = getattr(layout, f"{which}_bounds")
    start = getattr(layout, which)
    values = tally(tallies, name).values[start : start + len(bounds) + 2]
    return sum(values[:-1]), values[-1]
