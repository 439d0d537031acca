"""One job with all that is kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from exporter.queues.jobs import Job
from exporter.queues.queue import JobKey, State

# BullMQ's short names for options (optsDecodeMap, the same in 5.56.3 and 6.7.0).
OPTIONS = {
    "de": "deduplication",
    "fpof": "failParentOnFailure",
    "cpof": "continueParentOnFailure",
    "idof": "ignoreDependencyOnFailure",
    "kl": "keepLogs",
    "rdof": "removeDependencyOnFailure",
}


class ChildState(NamedTuple):
    """The current state of a child in its own queue."""

    state: State | None  # None: in none of its queue's lists
    removed: bool  # its hash is gone: its parent will wait forever
    failed_reason: str | None


class Child(NamedTuple):
    """A job that a flow's parent waits for.

    `outcome` is what the parent knows of it, `now` what its own queue knows: None if the child is
    processed, or if its queue cannot be read (another slot of a cluster, a prefix that the ACL user
    may not read).
    """

    key: JobKey
    outcome: str
    now: ChildState | None = None


@dataclass(frozen=True, slots=True)
class Children:
    """The jobs that a flow's parent waits for, by outcome."""

    counts: Mapping[str, int]
    jobs: tuple[Child, ...]

    @property
    def complete(self) -> bool:
        """Whether every one is named."""
        return len(self.jobs) == sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class JobDetail:
    """A job in full. Times are epoch milliseconds, `delay` milliseconds."""

    job: Job
    options: Any
    progress: Any
    priority: int
    delay: int
    stalled_count: int
    worker: str | None
    parent: JobKey | None
    children: Children | None
    log_lines: tuple[str, ...]
    log_total: int


def decoded_options(given: Any) -> Any:
    """A job's options by the names that applications use; anything else unchanged."""
    if not isinstance(given, dict):
        return given
    return {OPTIONS.get(name, name): value for name, value in given.items()}
