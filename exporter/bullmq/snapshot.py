"""What a poll found, as it is handed to whoever tells it on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from exporter.bullmq.keys import Queue, State
from exporter.bullmq.limits import NO_LIMITS, QueueLimits


@dataclass(frozen=True, slots=True)
class QueueReading:
    """One queue at one moment. What could not be read is absent (None, or no entry), never 0.

    Times are epoch seconds.
    """

    queue: Queue
    counts: Mapping[State, int]
    paused: bool | None = None
    version: str | None = None  # `bullmq:5.56.3`, as the application's BullMQ wrote it
    oldest_waiting: float | None = None
    oldest_active: float | None = None
    oldest_active_locked: bool | None = None  # whether a worker still holds that job
    next_delayed: float | None = None
    schedulers: int | None = None
    scheduler_runs: tuple[tuple[str, float], ...] = ()  # the soonest first
    heartbeat: float | None = None
    limits: QueueLimits = NO_LIMITS
    oldest_waiting_children: float | None = None  # a flow's parent
    unreadable: tuple[tuple[str, str], ...] = ()  # what could not be read, and why


class Beside(NamedTuple):
    """What a snapshot tells of a queue beside its reading: read less often, or of all at once."""

    workers: int | None
    retention: Mapping[State, int]
    duplicate_schedulers: int | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that the last good poll knows."""

    readings: tuple[QueueReading, ...]
    workers: Mapping[Queue, int] | None  # None where the server does not tell
    retention: Mapping[Queue, Mapping[State, int]]
    duplicate_schedulers: Mapping[Queue, int]
    discovered: float | None  # when the queues were last searched for; None where they are named
    # Queues that were found and are not watched, by why (watcher.UNWATCHED_…); None where none were
    # searched for.
    unwatched: Mapping[str, int] | None = None

    @property
    def beside_all(self) -> tuple[object, ...]:
        """What `beside` is taken from: the same objects for as long as it tells the same."""
        return (self.workers, self.retention, self.duplicate_schedulers)

    def beside(self, queue: Queue) -> Beside:
        return Beside(
            None if self.workers is None else self.workers.get(queue),
            self.retention.get(queue, {}),
            self.duplicate_schedulers.get(queue),
        )
