"""By how much the clocks of a queue's workers are ahead of Redis's.

`processedOn` of a job and the scores of finished jobs are times of a worker. The id of the event
that the same script wrote is a time of Redis.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

from exporter.queues.queue import Queue, State

# Compares a worker's clock with Redis's: when it moved a job to a state, by its clock (ms, as Redis
# has it). Does not await.
CompareClock = Callable[[Queue, State, bytes, bytes], None]

# A few of them may be wrong: commands that a worker sends after an outage of Redis have times from
# before it, for each job that it had.
MAX_COMPARISONS = 15


class WorkerClock:
    """The last comparisons, in the order of the events."""

    __slots__ = ("_last", "_offsets")

    def __init__(self) -> None:
        self._offsets = array("q")  # ms; a list of them is several times as large
        self._last = 0

    def compare(self, at: int, written: int) -> bool:
        """Compare the time of a worker with that of Redis, in epoch ms.

        Returns False if no newer event than those before was compared: each counts once.
        """
        if written <= self._last:
            return False
        self._last = written
        self._offsets.append(at - written)
        del self._offsets[:-MAX_COMPARISONS]
        return True

    @property
    def offset(self) -> float | None:
        """The median in seconds; None before the first comparison."""
        # Of two values the greater one: a delayed command has a time that is too early, never too
        # late.
        middle = len(self._offsets) // 2
        return sorted(self._offsets)[middle] / 1000 if self._offsets else None
