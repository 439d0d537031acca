"""The interface of a store: where queues are kept, as the rest of the program sees it.

To support another datastore: a package next to this module with a class that is a `Store`, and a
line in `stores.open_store`. What it cannot know is absent, and docs/metrics.md says so.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from exporter.queues.failure_evidence import SeenFailures
from exporter.queues.job_detail import JobDetail
from exporter.queues.jobs import Job, Page
from exporter.queues.queue import Queue, State
from exporter.queues.remark import Remark
from exporter.queues.snapshot import QueueReading, Scheduler
from exporter.queues.tallies import Tallies


@dataclass(frozen=True)
class Findings:
    """The result of a search. `queues` are sorted, and there may be more than may be watched."""

    queues: tuple[Queue, ...] = ()
    excluded: int = 0  # queues of these prefixes whose names the settings exclude
    too_long: int = 0  # queues whose names, with their prefixes, have more than MAX_BASE_BYTES
    # Only if all keys were searched, else None: the number of queues by prefixes that are not
    # configured, and the names of queues of Bull 3 or 4 that are not watched.
    other_prefixes: Mapping[str, int] | None = None
    bull: tuple[str, ...] | None = None
    mixed: tuple[str, ...] = ()  # queues that Bull and BullMQ use at the same time


class Collector(Protocol):
    """Reads one kind of facts about queues, now and then.

    `name` is the value of the label `collector`, and the field of QueueFacts. `interval` is in
    seconds. `max_share` is the share of the time that its runs may take; if they take more, it
    pauses for longer than `interval`. If the store refuses its reads, the log has `problem` and
    `consequence`: what is absent then and which alerts cannot fire.
    """

    name: str
    interval: float
    max_share: float
    problem: str
    consequence: str

    async def collect(
        self, readings: Sequence[QueueReading], *, seconds: float
    ) -> Mapping[Queue, Any]:
        """The fact of each of these queues, in at most `seconds` seconds.

        Queues whose fact is unknown have no entry. Raises StoreUnavailable.
        """
        ...

    def forget(self) -> None:
        """Forget what is remembered of earlier runs."""
        ...


class EventCounts(Protocol):
    """Counts what happens to jobs, from the store's event log, across restarts."""

    async def run(self) -> None:
        """Follow the events until cancelled, then save."""
        ...

    async def tallies(self) -> Tallies | None:
        """What was counted so far; None while events cannot be followed."""
        ...

    def seen_failures(self, queue: Queue) -> SeenFailures | None:
        """What was seen of the queue's failures; None if unknown."""
        ...


class Scan(Protocol):
    """All jobs of one state, each once, as far as its limits allow."""

    @property
    def seen(self) -> int:
        """How many jobs have been read so far."""

    @property
    def complete(self) -> bool:
        """Whether every job was seen."""

    @property
    def counts(self) -> Mapping[State, int]:
        """The queue's counts when the scan began."""

    def jobs(self) -> AsyncGenerator[Job, None]:
        """The jobs. Raises StoreUnavailable."""
        ...


class JobReader(Protocol):
    """Reads for requests of the API; they and polls do not delay each other.

    All reads raise StoreUnavailable.
    """

    def understanding(self) -> AbstractContextManager[None]:
        """Within this context a reply that cannot be understood raises StoreInvalidReply, and is
        logged.
        """
        ...

    def answering(self) -> AbstractAsyncContextManager[None]:
        """A time limit for this target's part of an answer."""
        ...

    def find_watched(self, name: str, prefix: str | None) -> list[Queue]:
        """The watched queues of this name, as it is shown; of all prefixes if that is None."""
        ...

    def find_new(self, name: str, prefix: str | None) -> list[Queue]:
        """Queues of this name that may have been created since the last discovery."""
        ...

    def jobs_of_key(self, key: bytes) -> list[tuple[Queue, bytes]]:
        """The watched queues, and ids in them, of which this may be a job's key."""
        ...

    async def read_queues(self) -> Sequence[QueueReading]:
        """All watched queues."""
        ...

    async def read_queue(self, queue: Queue) -> QueueReading:
        """One queue, whether it exists or not."""
        ...

    async def read_page(
        self,
        queue: Queue,
        state: State,
        *,
        start: int,
        limit: int,
        newest_first: bool,
        without: Sequence[str] = (),
    ) -> Page | None:
        """At most `limit` jobs from index `start` on; None if there is no such queue.

        Fields `without` are not read.
        """
        ...

    async def read_jobs(
        self, queue: Queue, state: State, ids: Sequence[bytes], *, without: Sequence[str]
    ) -> Sequence[Job]:
        """Those of these jobs that still exist."""
        ...

    async def existing(self, queue: Queue, ids: Sequence[bytes]) -> set[bytes]:
        """Which of these jobs still exist."""
        ...

    def scan(self, queue: Queue, state: State, *, newest_first: bool) -> Scan:
        """A reading of all jobs of a state, in batches."""
        ...

    async def read_job(
        self, queue: Queue, job_id: bytes, *, first_log: int, logs: int, prefixes: Sequence[str]
    ) -> JobDetail | None:
        """One job, with `logs` of its log lines from index `first_log` on; None if there is none.

        `prefixes` says where its relatives may be; see `JobKey.parsed`.
        """
        ...

    async def find_job(self, queue: Queue, job_id: bytes) -> bytes | None:
        """The job's id as it is stored; None if there is none."""
        ...

    async def read_schedulers(
        self, queue: Queue, *, start: int, limit: int
    ) -> tuple[int | None, Sequence[Scheduler]]:
        """How many schedulers there are, and a page of them, the next to run first.

        None and an empty sequence if they cannot be read.
        """
        ...

    async def read_eviction_policy(self) -> str | None:
        """The store's policy when it is full, if that may remove jobs; None if unknown."""
        ...


class Store(Protocol):
    """Where the queues of one target are kept. Every read is bounded in time and in size."""

    @property
    def kind(self) -> str:
        """What people call such a store: `Redis`."""

    @property
    def address(self) -> str:
        """The store for people, such as `Redis at redis:6379`."""

    @property
    def timeout(self) -> float:
        """The time limit of one call, in seconds."""

    @property
    def limitations(self) -> Sequence[Remark]:
        """What this kind of store never reports."""

    @property
    def collectors(self) -> Sequence[Collector]:
        """Its slow reads."""

    @property
    def events(self) -> EventCounts | None:
        """None if events are not followed."""

    @property
    def reader(self) -> JobReader:
        """The reader for requests."""

    def understanding(self) -> AbstractContextManager[None]:
        """Within it a reply that cannot be understood raises StoreInvalidReply."""
        ...

    async def search(self, *, pace: float, known: Sequence[Queue], everywhere: bool) -> Findings:
        """Search for queues once. Raises StoreUnavailable.

        `known` queues are returned as the same objects, which makes comparing them cheap. `pace` is
        how long to sleep after each call, as a multiple of the duration of the call. With
        `everywhere` it also finds queues that are not to be watched.
        """
        ...

    async def search_for_named(self, *, pace: float) -> Findings:
        """Search regardless of the named queues, to find similar names."""
        ...

    async def sign_of_new_queue(self) -> None:
        """Wait for a sign of a queue that is not known yet; for ever if the store gives none."""
        ...

    async def poll(
        self, queues: Sequence[Queue], *, configured: frozenset[Queue]
    ) -> tuple[QueueReading, ...]:
        """A reading of each queue that exists or is configured. Raises StoreUnavailable."""
        ...

    def exists(self, queue: Queue) -> bool:
        """Whether the queue existed when a poll last checked that."""
        ...

    def forget(self) -> None:
        """Forget all earlier replies: everything is asked for again."""
        ...

    def remarks_on(
        self, findings: Findings, *, named: Iterable[Queue], patient: bool
    ) -> Sequence[Remark]:
        """Remarks on what a search everywhere found in addition to the queues to watch, or did not
        find.

        `named` are the queues that are watched whether they exist or not. With `patient` it is
        early: there may be no queue at all because the application has not started yet.
        """
        ...

    async def look_elsewhere(self) -> Remark | None:
        """Where else there may be queues, if none was found; None if nowhere is known."""
        ...

    async def check_events(self) -> Remark | None:
        """Which events cannot be followed, and why, where nobody follows them; None if all can, or
        if that is not known.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
