"""Who goes first on the one event loop: requests before polls and events, which can wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Seconds for which a piece of work gives way while there are requests. A page of 100 jobs takes 1
# to 4 ms; and however many are asked for, polls and events get their share.
PATIENCE = 0.005
# Of a second at most so much is waited, and this many seconds where nothing was for long: a poll
# that waited without end would be taken for a Redis that is too slow.
SHARE = 0.75
MOST_PATIENCE = 0.5


class Turns:
    """Work that nobody waits for comes in pieces of about 1 ms, and gives way between them."""

    def __init__(self) -> None:
        self._requests = 0
        self._none = asyncio.Event()
        self._patience = MOST_PATIENCE
        self._refilled = 0.0  # by the loop's clock

    @contextmanager
    def request(self) -> Iterator[None]:
        """While somebody waits for an answer."""
        self._requests += 1
        self._none.clear()
        try:
            yield
        finally:
            self._requests -= 1
            if not self._requests:
                self._none.set()

    async def give_way(self) -> None:
        """Let others have their turn; those who wait for an answer until they have it, or for
        PATIENCE, as long as there is any left.
        """
        await asyncio.sleep(0)
        if not self._requests:
            return
        clock = asyncio.get_running_loop().time
        began = clock()
        refill = SHARE * (began - self._refilled)
        self._patience, self._refilled = min(MOST_PATIENCE, self._patience + refill), began
        if self._patience > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self._none.wait()
            self._patience -= clock() - began
