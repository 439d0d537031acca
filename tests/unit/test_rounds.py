"""What is read of the queues in rounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

import pytest

from exporter.concurrency.batches import batched
from exporter.concurrency.rounds import Rounds
from exporter.queues.queue import Queue
from exporter.stores.redis.client import RedisUnavailable

QUEUES = [Queue.named("bull", f"{number}") for number in range(6)]
IN_PAIRS = partial(batched, size=2)
SECONDS = 1.0


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets time pass for the event loop."""

    def move(seconds: float) -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "time", partial(lambda clock: clock() + seconds, loop.time))

    return move


async def test_a_round_goes_on_where_the_last_one_ended(passes: Callable[[float], None]) -> None:
    rounds: Rounds[str] = Rounds()
    number = 0

    async def read(queues: list[Queue]) -> Mapping[Queue, str]:
        passes(0.4 * SECONDS)
        return {queue: f"round {number}" for queue in queues}

    async def known(queues: list[Queue]) -> list[str | None]:
        nonlocal number
        number += 1
        found = await rounds.read(queues, IN_PAIRS, read, seconds=SECONDS)
        return [found.get(queue) for queue in QUEUES]

    first, second, third = "round 1", "round 2", "round 3"
    assert await known(QUEUES) == [first] * 4 + [None] * 2
    assert await known(QUEUES) == [first] * 4 + [second] * 2
    assert await known(QUEUES) == [third] * 4 + [second] * 2
    # The first queue is gone: nothing of it is kept, though others shift.
    assert (await known(QUEUES[1:]))[0] is None
    assert None not in (await known(QUEUES[1:]))[1:]


async def test_what_cannot_be_read_in_time_is_not_known_and_takes_nothing_with_it(
    passes: Callable[[float], None],
) -> None:
    rounds: Rounds[int] = Rounds()
    broken: tuple[Queue, Exception | None] | None = None

    async def read(queues: list[Queue]) -> Mapping[Queue, int]:
        if broken is not None and broken[0] in queues:
            if broken[1] is not None:
                raise broken[1]
            passes(2 * SECONDS)
            await asyncio.Event().wait()
        return dict.fromkeys(queues, 1)

    async def known() -> list[bool]:
        found = await rounds.read(QUEUES, IN_PAIRS, read, seconds=SECONDS)
        return [queue in found for queue in QUEUES]

    assert await known() == [True] * 6
    broken = (QUEUES[2], None)
    assert await known() == [True, True, False, False, True, True]
    assert await known() == [True, True, False, False, True, True]  # goes on behind it
    broken = (QUEUES[2], RedisUnavailable("refused"))
    with pytest.raises(RedisUnavailable):
        await known()
    broken = None
    assert await known() == [True, True, False, False, True, True]
    assert await known() == [True] * 6
