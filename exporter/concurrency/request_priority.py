"""Priority on the one event loop: requests come before polls and events, which can wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Seconds that a piece of work waits at most while there are requests. A page of 100 jobs takes 1 to
# 4 ms; and however many requests there are, polls and events get their share.
MAX_WAIT_SECONDS = 0.005
# Seconds of waiting per second, and how many may be saved up: a poll that waited forever would look
# like a Redis that is too slow.
REFILL_RATE = 0.75
MAX_BUDGET_SECONDS = 0.5


class RequestPriority:
    """Background work is divided into pieces of up to 2 ms, and yields to requests between them."""

    def __init__(self) -> None:
        self._requests = 0
        self._none = asyncio.Event()
        self._budget = MAX_BUDGET_SECONDS
        self._refilled = 0.0  # by the loop's clock

    @contextmanager
    def request(self) -> Iterator[None]:
        """While a client waits for a response."""
        self._requests += 1
        self._none.clear()
        try:
            yield
        finally:
            self._requests -= 1
            if not self._requests:
                self._none.set()

    async def yield_to_requests(self) -> None:
        """Let the event loop run other tasks, and wait while there are requests: for at most
        MAX_WAIT_SECONDS, and as long as the budget lasts.
        """
        await asyncio.sleep(0)
        if not self._requests:
            return
        clock = asyncio.get_running_loop().time
        began = clock()
        refill = REFILL_RATE * (began - self._refilled)
        self._budget, self._refilled = min(MAX_BUDGET_SECONDS, self._budget + refill), began
        if self._budget > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(MAX_WAIT_SECONDS):
                    await self._none.wait()
            self._budget -= clock() - began
