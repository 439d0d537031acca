"""When the longest-waiting job of a queue became ready, as known from several polls.

`jobs`, as edges.lua returns them: ids, each followed by the time by its hash (epoch ms, None if
unknown).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from exporter.queues.queue import Queue

# Seconds between two checks of every priority of a queue, while the job that was found stays there.
# A check costs two commands per priority; a job that starves waits much longer than that.
PRIORITY_CHECK_INTERVAL_SECONDS = 60.0

# When each of these jobs became ready: the times by their hashes, or better ones if known. Does not
# await.
ReadyTimes = Callable[[Queue, Sequence[Any]], Sequence[float | None]]


def ready_by_hash(_: Queue, jobs: Sequence[Any]) -> Sequence[float | None]:
    """The times by the jobs' hashes."""
    return jobs[1::2]


class PriorityCheck(NamedTuple):
    """What a check of every priority found, and when (monotonic) to check again."""

    starving: Sequence[Any]  # the longest-waiting job; empty if there was none
    due: float


NO_PRIORITY_CHECK = PriorityCheck([], 0.0)  # it is due


class WaitingJobs:
    """Finds the oldest of the jobs that edges.lua returned; shared by all pollers of one Redis."""

    def __init__(self, ready_times: ReadyTimes = ready_by_hash) -> None:
        self._ready_times = ready_times
        self._checks: dict[Queue, PriorityCheck] = {}

    def last_check(self, queue: Queue) -> PriorityCheck:
        """The last check of every priority; if there is none, one that is due."""
        return self._checks.get(queue, NO_PRIORITY_CHECK)

    def note_priority_check(self, queue: Queue, jobs: Sequence[Any], now: float) -> None:
        """Note what a check of every priority found."""
        times = self._ready_times(queue, jobs)
        known = [(at, number) for number, at in enumerate(times) if at is not None]
        _, number = min(known, default=(None, len(times)))
        starving = jobs[2 * number : 2 * number + 2]
        self._checks[queue] = PriorityCheck(starving, now + PRIORITY_CHECK_INTERVAL_SECONDS)

    def forget(self, queue: Queue) -> None:
        self._checks.pop(queue, None)

    def oldest(self, queue: Queue, jobs: Sequence[Any]) -> float | None:
        """When the oldest of these became ready (ms); None if unknown for all."""
        times = self._ready_times(queue, jobs)
        return min([at for at in times if at is not None], default=None)
