"""Who goes first on the one event loop: requests before polls and events, which can wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Seconds for which a piece of work gives way while there are requests. A page of 100 jobs takes 1
# to 4 ms; and however many are asked for, polls and events get their share.
PATIENCE = 0.005


class Turns:
    """Work that nobody waits for comes in pieces of about 1 ms, and gives way between them."""

    def __init__(self) -> None:
        self._requests = 0
        self._none = asyncio.Event()

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
        PATIENCE.
        """
        await asyncio.sleep(0)
        if self._requests:
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self._none.wait()
