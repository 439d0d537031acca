"""Jobs, and pages of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from exporter.queues.queue import State

# The fields that an application can fill with anything, in the order in which they are read, and
# the maximum number of bytes of one field and of all of them in a page: 1,000 jobs of 353 kB each
# kept the process busy for 16 s and took 3 GB. What exceeds the limits is omitted, and the answer
# says so.
UNBOUNDED = ("failedReason", "stacktrace", "data", "returnvalue")
# The fields that a list of jobs can do without.
BULKY = ("stacktrace", "data", "returnvalue")


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """The maximum number of bytes of one such field and of all of them together, and of seconds for
    reading all jobs of a state.
    """

    field_bytes: int = 1 << 20
    page_bytes: int = 16 << 20
    scan_seconds: float = 5.0


class Job(NamedTuple):
    """A job as BullMQ's Job.fromJSON reads its hash. Times are epoch milliseconds."""

    id: str
    raw_id: bytes  # as Redis has it
    name: str
    data: Any
    state: State | None  # None: in none of the queue's lists
    failed_reason: str | None
    timestamp: int | None
    processed_on: int | None
    finished_on: int | None
    attempts_made: int
    stacktrace: list[Any]
    return_value: Any

    @property
    def ingestion_source(self) -> Any:
        """Which mail source of Open Archiver the job is for, or None."""
        return self.data.get("ingestionSourceId") if isinstance(self.data, dict) else None


@dataclass(frozen=True, slots=True)
class Page:
    """Part of the jobs of one state, and the counts of the same moment."""

    has_meta: bool
    has_schedulers: bool
    counts: Mapping[State, int]
    jobs: tuple[Job, ...]
    ids: tuple[bytes, ...] = ()  # of the jobs, and of those that vanished meanwhile
    ended: bool = False  # whether there are no more after it
    missing: int = 0  # how many of the ids have no hash: evicted or deleted
    has_counter: bool = False  # of jobs; a queue of Bull may have nothing else

    @property
    def is_empty(self) -> bool:
        """Whether the queue holds neither jobs nor schedulers."""
        return not (self.has_schedulers or any(self.counts.values()))


def too_large(
    sizes: Sequence[Sequence[int]], fields: Sequence[str], limits: ReadLimits
) -> list[dict[str, bytes]]:
    """For each job the fields not to read, and what to show in their place.

    `sizes` are bytes. The allowance is spent on the first field of all jobs, then on the second,
    and so on.
    """
    left = limits.page_bytes
    if sum(map(sum, sizes)) <= min(left, limits.field_bytes):
        return [{}] * len(sizes)
    left_out: list[dict[str, bytes]] = [{} for _ in sizes]
    for at, field in enumerate(fields):
        for job_sizes, large in zip(sizes, left_out, strict=True):
            if job_sizes[at] > min(left, limits.field_bytes):
                large[field] = b"[left out: %d bytes]" % job_sizes[at]
            else:
                left -= job_sizes[at]
    return left_out
