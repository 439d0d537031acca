"""By how much clocks differ from Redis's, from jobs and the events that report them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from exporter.queues.event_log import Entry
from exporter.queues.queue import Queue, State
from exporter.queues.queue_event_counter import QueueEventCounter
from exporter.queues.tallies import Layout
from exporter.queues.tracked_jobs import JobBudget
from tests.support.bullmq import StartWork
from tests.support.counters import wait_following
from tests.support.exporters import Exporter, StartExporter
from tests.support.programs import faked_time
from tests.support.servers import Server
from tests.support.waiting import eventually

OF_WORKERS = "bullmq_queue_clock_offset_seconds"
OF_EXPORTER = "bullmq_exporter_clock_offset_seconds"
# Far more than the time from a look at the clock to the event, on any machine.
TOLERANCE = 100


def shows(exporter: Exporter, expected: dict[str, float]) -> bool:
    """Whether the workers of these queues alone have a clock, and these."""
    found = {queue: exporter.metrics.value(OF_WORKERS, queue=queue) for queue in expected}
    assert all(
        offset is not None and abs(offset - expected[queue]) < TOLERANCE
        for queue, offset in found.items()
    ), found
    assert len(exporter.metrics.samples(OF_WORKERS)) == len(expected)
    return True


@pytest.mark.parametrize(
    ("version", "clock", "offset"), [("bullmq5", "-11m", -660), ("bullmq6", "+2h", 7200)]
)
def test_a_workers_clock_is_compared_with_that_of_redis(
    server: Server,
    start_exporter: StartExporter,
    start_work: StartWork,
    version: str,
    clock: str,
    offset: float,
) -> None:
    exporter = wait_following(start_exporter(server.url, **faked_time("+1h")))
    right, wrong = start_work(version, server.port), start_work(version, server.port, clock=clock)
    # Whoever adds them, and whatever they say: what counts is the worker's clock.
    wrong.add("agrees", "plain", 3)
    right.add("finished", "plain", 3, {"timestamp": 1000})
    right.add("failed", "fails", 1)
    right.add("removed", "sleeps-600000", 1, {"removeOnComplete": True})
    right.add("waits", "plain", 3)
    right.work("agrees")
    for queue in ("finished", "failed", "removed"):
        wrong.work(queue)
    expected = {"agrees": 0, "finished": offset, "failed": offset, "removed": offset}
    eventually(lambda: shows(exporter, expected))

    def exporter_is_ahead() -> bool:
        right.add("waits", "plain", 1)  # events that are read as they are written
        ahead = exporter.metrics.value(OF_EXPORTER)
        assert ahead is not None
        assert abs(ahead - 3600) < TOLERANCE
        return True

    eventually(exporter_is_ahead)


class Jobs:
    """A queue's jobs, one a second, whose worker is behind Redis by 5 seconds."""

    def __init__(self) -> None:
        self.counter = QueueEventCounter(
            Queue.named("bull", "q"), Layout((100,), (100,)), JobBudget(1000), max_names=10
        )
        self.now = 1_700_000_000_000

    def event(self, kind: str, job_id: bytes) -> Entry:
        return b"%d-0" % self.now, [b"event", kind.encode(), b"jobId", job_id, b"name", b"n"]

    def start(self, job_id: bytes, *, offset: int = -5000) -> None:
        """The worker takes a job, and a poll sees it active."""
        self.now += 1000
        self.counter.read([self.event("added", job_id), self.event("active", job_id)])
        self.counter.freeze()  # published in between
        self.counter.compare_clock(State.ACTIVE, job_id, self.now + offset)

    def finish(self, job_id: bytes, *, offset: int = -5000) -> None:
        """It is finished, and is seen as the newest of the finished jobs."""
        self.now += 1000
        self.counter.read([self.event("completed", job_id)])
        self.counter.compare_clock(State.COMPLETED, job_id, self.now + offset)

    @property
    def offset(self) -> float | None:
        return self.counter.freeze().clock_offset


@pytest.mark.parametrize("odd", [-86_400_000, 86_400_000])
def test_jobs_with_odd_times_change_nothing(odd: int) -> None:
    jobs = Jobs()
    for number in range(8):
        jobs.start(b"%d" % number)
    for number in range(7):  # what waited while Redis was away
        jobs.start(b"odd-%d" % number, offset=odd)
        assert jobs.offset == -5.0
    # It is so: from then on.
    jobs.start(b"another", offset=odd)
    assert jobs.offset == odd / 1000


def test_a_job_counts_once_however_often_it_is_seen() -> None:
    jobs = Jobs()
    jobs.start(b"odd", offset=60_000)
    odd_at = jobs.now + 60_000
    jobs.start(b"1")
    for number in range(2, 5):
        jobs.finish(b"%d" % number)
        for _ in range(20):
            jobs.counter.compare_clock(State.ACTIVE, b"odd", odd_at)
        assert jobs.offset == -5.0


@pytest.mark.parametrize(
    ("state", "job_id"),
    [
        (State.COMPLETED, b"active"),  # by its end, which was not read
        (State.COMPLETED, b"finished before"),
        (State.ACTIVE, b"finished last"),  # its start was seen late
        (State.ACTIVE, b"waits"),
        (State.ACTIVE, b"unknown"),
    ],
)
def test_only_times_of_the_same_moment_are_compared(state: State, job_id: bytes) -> None:
    jobs = Jobs()
    for finished in (b"finished before", b"finished last"):
        jobs.counter.read(events(jobs, finished, ("added", "active", "completed")))
    jobs.counter.read(events(jobs, b"active", ("added", "active")))
    jobs.counter.read(events(jobs, b"waits", ("added", "waiting")))
    jobs.counter.compare_clock(state, job_id, jobs.now)
    assert jobs.offset is None


def events(jobs: Jobs, job_id: bytes, kinds: Sequence[str]) -> list[Entry]:
    found = []
    for kind in kinds:
        jobs.now += 1000
        found.append(jobs.event(kind, job_id))
    return found


def test_an_id_that_is_no_time_is_compared_with_nothing() -> None:
    jobs = Jobs()
    jobs.start(b"1")
    jobs.now = 2**64 - 1001
    jobs.start(b"2", offset=-jobs.now)
    assert jobs.offset == -5.0
