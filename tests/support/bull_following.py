"""A follower of Bull's events in the process of the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest

from exporter.queues.queue import Queue
from exporter.queues.tallies import Count, Tallies
from exporter.settings import EventsSettings, RedisSettings
from exporter.stores.bull.events.follower import BullFollower
from exporter.stores.redis.client import RedisReader
from tests.support.bullmq import Work
from tests.support.counters import COUNTERS, Truth

Until = Callable[[Callable[[Tallies], Any]], Awaitable[Tallies]]


class Followed:
    """What is followed: `queues` may change, and `until` waits."""

    def __init__(self, follower: BullFollower, queues: tuple[Queue, ...]) -> None:
        self.follower, self.queues = follower, queues
        self.task = asyncio.create_task(follower.run())

    async def until(self, check: Callable[[Tallies], Any], what: str = "") -> Tallies:
        """The tallies as soon as this is so."""
        tallies = None
        for _ in range(3000):
            tallies = await self.follower.tallies()
            with suppress(KeyError):
                if tallies is not None and check(tallies):
                    return tallies
            assert not self.task.done(), self.task.exception()
            await asyncio.sleep(0.02)
        pytest.fail(f"not so within a minute: {what or tallies}")

    async def until_counted(self, truth: Truth) -> Tallies:
        """The tallies as soon as they are the truth."""
        tallies = await self.follower.tallies()
        for _ in range(1000):
            tallies = await self.follower.tallies()
            if tallies is not None and counted(tallies) == truth:
                return tallies
            await asyncio.sleep(0.02)
        assert tallies is not None
        assert counted(tallies) == truth
        return tallies


@asynccontextmanager
async def followed_bull(
    port: int,
    *queues: str,
    prefix: str = "bull",
    redis: dict[str, Any] | None = None,
    around: Any = None,
    **settings: Any,
) -> AsyncIterator[Followed]:
    """Follows queues of Bull; their events are heard when it is entered."""
    redis_settings = RedisSettings(
        **{"host": "127.0.0.1", "port": port, "timeout": 2, **(redis or {})}
    )
    reader = RedisReader(redis_settings, connections=1)
    followed: Followed | None = None
    watched = tuple(Queue.named(prefix, name) for name in queues)
    follower = BullFollower(
        reader,
        EventsSettings(**settings),
        lambda: followed.queues if followed is not None else watched,
        redis_settings=redis_settings,
        **(around or {}),
    )
    followed = Followed(follower, watched)
    try:
        if watched:
            await followed.until(lambda _: True)
        yield followed
    finally:
        followed.task.cancel()
        with suppress(asyncio.CancelledError):
            await followed.task
        await reader.close()


def counted(tallies: Tallies) -> Truth:
    """What the counters say, by queue, job name and counter; without the zeros."""
    found: Truth = {}
    for queue, of_queue in tallies.queues.items():
        for name, tally in of_queue.by_name.items():
            values = {
                what: tally.values[Count[what.upper()]]
                for what in COUNTERS
                if tally.values[Count[what.upper()]]
            }
            if values:
                found.setdefault(queue.name, {})[name] = values
    return found


def total(tallies: Tallies, what: Count) -> int:
    """How many jobs of all names and queues were counted as this."""
    return sum(
        tally.values[what] for each in tallies.queues.values() for tally in each.by_name.values()
    )


@contextmanager
def working(version: str, port: int, prefix: str = "bull") -> Iterator[Work]:
    work = Work(version, port, prefix)
    try:
        yield work
    finally:
        work.close()


async def asked(command: Callable[..., Any], *arguments: Any) -> Any:
    """What a worker answers, while the follower runs."""
    return await asyncio.to_thread(command, *arguments)
