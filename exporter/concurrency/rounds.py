"""Reads queues in rounds, because reading all of them takes longer than a poll may."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from exporter.queues.queue import Queue

Found = TypeVar("Found")


class Rounds(Generic[Found]):
    """Reads queues batch by batch. A round begins no further batch in the second half of its time,
    and the next one continues: so what is known of a queue may be as many rounds old as all take.
    """

    def __init__(self) -> None:
        self._next = 0
        self.known: Mapping[Queue, Found] = {}

    async def read(
        self,
        queues: Sequence[Queue],
        batches: Callable[[Iterable[Queue]], Iterator[list[Queue]]],
        read: Callable[[list[Queue]], Awaitable[Mapping[Queue, Found]]],
        *,
        seconds: float,
    ) -> Mapping[Queue, Found]:
        """What is known of these queues after a round of at most `seconds` seconds.

        Those that could not be read, or not in time, have no entry. Raises what `read` raises.
        """
        begin = self._next if self._next < len(queues) else 0
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        known = {queue: self.known[queue] for queue in queues if queue in self.known}
        self._next = begin
        try:
            async with asyncio.timeout_at(end):
                for batch in batches(queues[begin:]):
                    self._next += len(batch)
                    for queue in batch:
                        known.pop(queue, None)
                    known |= await read(batch)
                    if loop.time() > end - seconds / 2:
                        break
        except TimeoutError:
            pass  # the next round goes on behind this batch
        finally:
            self.known = known
        return known


class ReadInRounds(Generic[Found]):
    """The common part of collectors that read in rounds; see stores.base.Collector."""

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._rounds: Rounds[Found] = Rounds()

    def forget(self) -> None:
        """Forget all results; the next round begins with the first queue."""
        self._rounds = Rounds()
