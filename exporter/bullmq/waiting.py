"""When the longest-waiting job of a queue became ready, as known from several polls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from exporter.bullmq.keys import Queue

# Seconds between two checks of every priority of a queue, while the job that was found stays there.
# A check costs two commands per priority; a job that starves waits much longer than that.
LOOK_INTERVAL_SECONDS = 60.0

# When a waiting job became ready: takes the queue, the job's id and the time by its hash (epoch ms,
# None if unknown), and returns a better time if one is known, or None. Does not await.
ReadyAt = Callable[[Queue, bytes, float | None], float | None]


def ready_by_hash(_: Queue, __: bytes, by_hash: float | None) -> float | None:
    """Return the time by the job's hash."""
    return by_hash


class _Look(NamedTuple):
    """The longest-waiting job that a check of every priority found, and when to check again."""

    job_id: bytes
    due: float  # monotonic


class WaitingJobs:
    """Finds the oldest of the jobs that heads.lua returned; shared by all pollers of one Redis."""

    def __init__(self, ready_at: ReadyAt = ready_by_hash) -> None:
        self._ready_at = ready_at
        self._looks: dict[Queue, _Look] = {}

    def is_look_due(self, queue: Queue, now: float) -> bool:
        """Whether to check every priority; otherwise two, and the job that `starves`."""
        look = self._looks.get(queue)
        return look is None or look.due <= now

    def starves(self, queue: Queue) -> bytes:
        """The longest-waiting prioritized job of the last check; empty if there was none."""
        look = self._looks.get(queue)
        return b"" if look is None else look.job_id

    def note_look(self, queue: Queue, jobs: Sequence[Any], now: float) -> None:
        """Note what a check of every priority found."""
        oldest = self._oldest(queue, jobs)
        self._looks[queue] = _Look(oldest[1] if oldest else b"", now + LOOK_INTERVAL_SECONDS)

    def note_found(self, queue: Queue, jobs: Sequence[Any]) -> None:
        """Note what was found between two checks; check again once the starving job was taken."""
        if (job_id := self.starves(queue)) and job_id not in jobs[::2]:
            del self._looks[queue]

    def forget(self, queue: Queue) -> None:
        self._looks.pop(queue, None)

    def oldest(self, queue: Queue, jobs: Sequence[Any]) -> bytes | None:
        """When the oldest of these became ready (ms, as Redis returns numbers); None if unknown for
        all. `jobs`: ids, each followed by the time by its hash.
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
