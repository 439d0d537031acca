"""Counts of a queue's jobs since it has been followed, by job name."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from exporter.queues.queue import Queue
from exporter.queues.reason_counts import FrozenReasons

# The names for jobs whose name cannot be read any more, and for jobs with names beyond the limit.
UNKNOWN = "__unknown__"
OTHER = "__other__"


class Count(IntEnum):
    """The kinds of counts; a member's value is its index in `Tally.values`."""

    ADDED = 0
    COMPLETED = 1
    FAILED = 2  # for good
    RETRIED = 3  # a failed attempt that is retried
    STALLED = 4
    RETRIES_EXHAUSTED = 5
    DEDUPLICATED = 6  # adds that deduplication dropped
    DUPLICATED = 7  # adds with an id that exists already


@dataclass(frozen=True)
class Layout:
    """Where the histograms are in `Tally.values`: after the counts, each as its buckets (the last
    one for values above all bounds), then its sum. Bounds and sums are in milliseconds.
    """

    wait_bounds: tuple[int, ...]
    process_bounds: tuple[int, ...]
    wait: int = field(init=False)
    process: int = field(init=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "wait", len(Count))
        object.__setattr__(self, "process", self.wait + len(self.wait_bounds) + 2)
        object.__setattr__(self, "size", self.process + len(self.process_bounds) + 2)

    @property
    def bounds(self) -> list[list[int]]:
        return [list(self.wait_bounds), list(self.process_bounds)]


class FinishedJobs(NamedTuple):
    """Numbers of jobs by how they ended; the fields have the names of BullMQ's states."""

    completed: int = 0
    failed: int = 0

    @classmethod
    def of(cls, tallies: Iterable[Sequence[int]]) -> FinishedJobs:
        """The sums over the values of these tallies."""
        values = list(tallies)
        return cls(
            sum(each[Count.COMPLETED] for each in values),
            sum(each[Count.FAILED] for each in values),
        )

    def plus(self, other: FinishedJobs) -> FinishedJobs:
        return FinishedJobs(self.completed + other.completed, self.failed + other.failed)

    def minus(self, other: FinishedJobs) -> FinishedJobs:
        return FinishedJobs(self.completed - other.completed, self.failed - other.failed)


# The job that was last counted at an index: its id, the duration in ms, and the entry's id.
Exemplar = tuple[bytes, int, bytes]


class Tally:
    """Counts of the jobs of one name, as one flat list, so that an event costs one addition."""

    __slots__ = ("_frozen", "exemplars", "name", "restored", "values")

    def __init__(self, name: str, size: int, *, restored: bool = False) -> None:
        self.name = name
        self.values = [0] * size
        self.exemplars: dict[int, Exemplar] = {}
        self.restored = restored
        self._frozen: FrozenTally | None = None

    def observe(
        self, start: int, bounds: tuple[int, ...], milliseconds: int, job_id: bytes, entry_id: bytes
    ) -> None:
        """Add a duration to the histogram that begins at `start`."""
        place = start + bisect_left(bounds, milliseconds)
        self.values[place] += 1
        self.values[start + len(bounds) + 1] += milliseconds
        self.exemplars[place] = (job_id, milliseconds, entry_id)

    def add(self, other: Tally) -> None:
        for place, value in enumerate(other.values):
            if value:
                self.values[place] += value
        self.exemplars.update(other.exemplars)

    def mark_restored(self) -> None:
        """Note that it was exposed before, so it is not new when it is exposed again."""
        self.restored, self._frozen = True, None

    def freeze(self) -> FrozenTally:
        """A copy; the same object as before while nothing has changed."""
        values = tuple(self.values)
        if self._frozen is None or self._frozen.values != values:
            self._frozen = FrozenTally(values, dict(self.exemplars), self.restored)
        return self._frozen


@dataclass(frozen=True, slots=True, eq=False)
class FrozenTally:
    """A tally at one moment. `restored`: its series had disappeared, and continues where it was."""

    values: tuple[int, ...]
    exemplars: Mapping[int, Exemplar]
    restored: bool


@dataclass(frozen=True, slots=True)
class QueueTallies:
    """What was counted of one queue: by job name, and the events that were missed.

    `restored`: its series had disappeared, with a restart or with the queue, and continue where
    they were.
    """

    by_name: Mapping[str, FrozenTally]
    missed: int
    restored: bool
    events_off: bool = False  # the queue keeps too few events to be read
    # Seconds by which its workers' clocks are ahead of Redis's; None if unknown.
    clock_offset: float | None = None
    reasons: FrozenReasons | None = None  # None without failures, or if they are not counted


class Saves(NamedTuple):
    """The results of saving: when it last succeeded (epoch s; 0: not yet), and how often it failed
    or could not begin because the previous save had not ended.
    """

    last: float = 0.0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Tallies:
    """What was counted of all queues that are followed, at one moment.

    `removed`: jobs that finished in queues that are no longer followed.
    """

    layout: Layout
    queues: Mapping[Queue, QueueTallies]
    events_read: int
    lag: float  # seconds by Redis's clock from the last entry read to the last one written
    tracked_jobs: int
    untracked_jobs: int  # counted, but not tracked, because the limit was reached
    removed: FinishedJobs
    # Seconds by which the exporter's clock is ahead of Redis's, or a little more; None if unknown.
    clock_offset: float | None = None
    uncertain_gaps: int = 0  # gaps in which more events may be missing than were counted
    saves: Saves | None = None  # None without a state file
    # Seconds during which events that are not stored were not received; None if events are stored.
    unheard: float | None = None
    # False while the events of some of the queues cannot be followed: these are not in `queues`.
    is_complete: bool = True
