"""Since when the oldest job of a queue waits: what is known of it beyond one poll."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from exporter.bullmq.keys import Queue

# Seconds between two looks at each priority of a queue, while the job that was found stays there. A
# look costs two commands a priority; a job that starves does so for much longer.
LOOK_INTERVAL_SECONDS = 60.0

# When a waiting job became ready: takes the queue, the job's id and when its hash says that it was
# (epoch ms, None where it does not), and returns what is known better, or None. Awaits nothing.
ReadyAt = Callable[[Queue, bytes, float | None], float | None]


def ready_by_hash(_: Queue, __: bytes, by_hash: float | None) -> float | None:
    """Where nothing is known beyond the job's hash."""
    return by_hash


class _Look(NamedTuple):
    """What a look at each priority found: the job that waited the longest; when to look anew."""

    job_id: bytes
    due: float  # monotonic


class WaitingJobs:
    """Finds the oldest of the jobs that heads.lua looked at; for all pollers of one Redis."""

    def __init__(self, ready_at: ReadyAt = ready_by_hash) -> None:
        self._ready_at = ready_at
        self._looks: dict[Queue, _Look] = {}

    def is_look_due(self, queue: Queue, now: float) -> bool:
        """Whether to look at each priority; else at two, and at the job that `starves`."""
        look = self._looks.get(queue)
        return look is None or look.due <= now

    def starves(self, queue: Queue) -> bytes:
        """The prioritized job that had waited the longest at the last look; empty if none had."""
        look = self._looks.get(queue)
        return b"" if look is None else look.job_id

    def note_look(self, queue: Queue, jobs: Sequence[Any], now: float) -> None:
        """Note what was found at a look at each priority."""
        oldest = self._oldest(queue, jobs)
        self._looks[queue] = _Look(oldest[1] if oldest else b"", now + LOOK_INTERVAL_SECONDS)

    def note_found(self, queue: Queue, jobs: Sequence[Any]) -> None:
        """Note what was found between two looks: once the job that starved was taken, look anew."""
        if (job_id := self.starves(queue)) and job_id not in jobs[::2]:
            del self._looks[queue]

    def forget(self, queue: Queue) -> None:
        self._looks.pop(queue, None)

    def oldest(self, queue: Queue, jobs: Sequence[Any]) -> bytes | None:
        """When the first of these became ready (ms, as Redis tells numbers); None where that is
        known of none. `jobs`: ids, each with the time by its hash.
        """
        oldest = self._oldest(queue, jobs)
        return None if oldest is None else b"%.0f" % oldest[0]

    def _oldest(self, queue: Queue, jobs: Sequence[Any]) -> tuple[float, bytes] | None:
        times = [
            (at, job_id)
            for job_id, by_hash in zip(jobs[::2], jobs[1::2], strict=True)
            if (at := self._ready_at(queue, job_id, None if by_hash is None else float(by_hash)))
            is not None
        ]
        return min(times, default=None)
