"""What each event of a queue counts, without a server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from exporter.queues.event_log import Gap
from exporter.queues.job_facts import NO_JOB, JobFacts
from exporter.queues.queue import Queue, State
from exporter.queues.queue_event_counter import (
    CHILDREN_FAILED,
    CLOCK_SKEW_MS,
    MAX_GAPS,
    QueueEventCounter,
)
from exporter.queues.tallies import OTHER, UNKNOWN, Count, FinishedJobs, Layout
from exporter.queues.tracked_jobs import JobBudget

LAYOUT = Layout((10, 100), (1000,))
QUEUE = Queue.named("bull", "mail")
START = 1_000_000


class Events:
    """A counter that has read events, written as BullMQ does; `at` is in ms since the start."""

    def __init__(self, *, max_jobs: int = 100, max_names: int = 10) -> None:
        self.budget = JobBudget(max_jobs)
        self.counter = QueueEventCounter(QUEUE, LAYOUT, self.budget, max_names=max_names)
        self.counter.start(START)
        self._number = 0

    def __call__(self, event: str, job_id: str = "1", *, at: int = 0, **more: str) -> Events:
        self._number += 1
        fields = [
            "event",
            event,
            "jobId",
            job_id,
            *(part for pair in more.items() for part in pair),
        ]
        entry_id = b"%d-%d" % (START + at, self._number)
        entries = [(entry_id, [field.encode() for field in fields])]
        self.counter.read(entries)
        self.counter.cursor.advance(entries)
        return self

    def resolve(self, facts: JobFacts = NO_JOB) -> None:
        self.counter.resolve(dict.fromkeys(self.counter.unresolved(), facts))

    def counts(self, name: str = "import") -> dict[Count, int]:
        """What is not 0."""
        values = self.counter.tallies[name].values
        return {count: values[count] for count in Count if values[count]}

    def buckets(self, start: int, end: int) -> list[int]:
        return self.counter.tallies["import"].values[start:end]


def facts(name: bytes = b"import", *, failed: int = 0, started: int = 0) -> JobFacts:
    """The hash of a job of so many failed attempts and starts."""
    return JobFacts(name, b"%d" % failed, None, b"%d" % started, None, None)


@pytest.fixture
def events() -> Iterator[Events]:
    read = Events()
    yield read
    # Whatever happens, as many jobs are tracked as the budget says.
    assert read.budget.taken == len(read.counter.jobs)


def test_a_job_that_completes_is_counted_with_its_wait_and_its_duration(events: Events) -> None:
    events("added", name="import")("waiting", at=0)("active", at=50)
    events("completed", at=1050, prev="active")
    assert events.counts() == {Count.ADDED: 1, Count.COMPLETED: 1}
    assert events.buckets(LAYOUT.wait, LAYOUT.process) == [0, 1, 0, 50]
    assert events.buckets(LAYOUT.process, LAYOUT.size) == [1, 0, 1000]
    assert events.counter.jobs == {}


def test_a_delay_is_no_wait(events: Events) -> None:
    events("added", name="import")("delayed", at=0)("waiting", at=60_000, prev="delayed")
    events("active", at=60_005)
    assert events.buckets(LAYOUT.wait, LAYOUT.process) == [1, 0, 0, 5]


def test_a_job_that_fails_for_good_is_counted_with_an_exemplar(events: Events) -> None:
    events("added", name="import")("waiting")("active")("failed", failedReason="x", prev="active")
    events("retries-exhausted", attemptsMade="3")
    assert events.counts() == {Count.ADDED: 1, Count.FAILED: 1, Count.RETRIES_EXHAUSTED: 1}
    assert events.counter.tallies["import"].exemplars[Count.FAILED][0] == b"1"


def test_an_attempt_that_fails_without_a_backoff_is_retried_and_not_failed(events: Events) -> None:
    events("added", name="import")("waiting")("active")("waiting", prev="failed")
    assert events.counts() == {Count.ADDED: 1, Count.RETRIED: 1}
    assert not events.counter.unresolved()


@pytest.mark.parametrize(
    ("event", "more"), [("waiting", {"prev": "active"}), ("delayed", {"delay": "1"})]
)
@pytest.mark.parametrize("failed", [0, 1])
def test_the_hash_says_whether_a_job_that_ceases_to_be_active_had_failed(
    event: str, more: dict[str, str], failed: int, events: Events
) -> None:
    """Otherwise it was put back: by a rate limit, or by Job.moveToDelayed()."""
    events("added", name="import")("waiting")("active")(event, **more)
    assert events.counter.unresolved() == {b"1"}
    events.resolve(facts(failed=failed, started=1))
    assert events.counts().get(Count.RETRIED, 0) == failed


def test_a_stalled_job_is_no_retry(events: Events) -> None:
    events("added", name="import")("waiting")("active")("waiting", prev="active")("stalled")
    assert not events.counter.unresolved()
    assert events.counts() == {Count.ADDED: 1, Count.STALLED: 1}


def test_a_failed_job_that_is_retried_by_hand_has_had_no_further_failed_attempt(
    events: Events,
) -> None:
    events("added", name="import")("waiting")("active")("failed")("waiting", prev="failed")
    events("active")("completed")
    events.resolve(NO_JOB)  # removed since: its name is known from before
    assert events.counts() == {Count.ADDED: 1, Count.FAILED: 1, Count.COMPLETED: 1}


def test_a_parent_whose_children_failed_has_not_used_an_attempt(events: Events) -> None:
    events("added", name="import")("waiting")("active")("waiting", prev="failed")("active")
    before = events.counter.jobs[b"1"]
    events("failed", failedReason=CHILDREN_FAILED.decode())
    assert before.retries == 0


def test_jobs_from_before_count_under_their_name_as_soon_as_it_is_known(events: Events) -> None:
    events("completed", "old")
    assert events.counter.unresolved() == {b"old"}
    assert events.counter.tallies == {}
    events.resolve(facts(b"cleanup"))
    assert events.counts("cleanup") == {Count.COMPLETED: 1}


def test_jobs_whose_hash_is_gone_count_as_unknown(events: Events) -> None:
    events("failed", "old")
    events.resolve(NO_JOB)
    assert events.counts(UNKNOWN) == {Count.FAILED: 1}


@pytest.mark.parametrize(
    "written", [["debounced", "deduplicated"], ["debounced"], ["deduplicated"]]
)
def test_a_swallowed_add_counts_once_whichever_events_a_version_writes(
    written: list[str], events: Events
) -> None:
    events("added", name="import")
    for event in written * 2:
        events(event)
    assert events.counts() == {Count.ADDED: 1, Count.DEDUPLICATED: 2}


def test_an_add_with_the_id_of_a_job_is_a_duplicate_of_that_job(events: Events) -> None:
    events("added", name="import")("duplicated")
    assert events.counts() == {Count.ADDED: 1, Count.DUPLICATED: 1}


@pytest.mark.parametrize("event", ["progress", "drained", "of-a-later-version"])
def test_other_events_move_the_position_and_count_nothing(event: str, events: Events) -> None:
    events(event, at=5)
    assert events.counter.cursor.position == b"%d-1" % (START + 5)
    assert events.counter.tallies == {}
    assert not events.counter.unresolved()


def test_names_beyond_the_limit_are_counted_together() -> None:
    events = Events(max_names=2)
    for name in ("a", "b", "c", "d", "a"):
        events("added", name=name)
    assert events.counts("a") == {Count.ADDED: 2}
    assert events.counts(OTHER) == {Count.ADDED: 2}
    assert events.counter.tallies.keys() == {"a", "b", OTHER}


def test_jobs_beyond_the_budget_are_counted_but_not_tracked() -> None:
    events = Events(max_jobs=1)
    events("added", "1", name="import")("added", "2", name="import")
    assert events.counts() == {Count.ADDED: 2}
    assert (events.budget.taken, events.budget.refused) == (1, 1)
    events("removed", "1")("added", "3", name="import")
    assert [*events.counter.jobs] == [b"3"]


def test_what_cannot_be_read_is_missed_and_jobs_on_their_way_are_forgotten(events: Events) -> None:
    events("added", name="import")("waiting")
    events.counter.pass_over([(b"%d-0" % (START + 9), [b"event"])])
    assert (events.counter.missed, events.counter.jobs) == (1, {})
    events("active", at=10)("completed", at=20)
    events.resolve(facts())
    # Since when it had waited is unknown: no wait is better than a wrong one.
    assert events.buckets(LAYOUT.wait, LAYOUT.process) == [0, 0, 0, 0]


def test_many_gaps_are_kept_as_a_few_without_losing_what_was_missed(events: Events) -> None:
    for number in range(MAX_GAPS + 5):
        events.counter.note_gap(Gap(1, START + number, START + number + 1))
    gaps = events.counter.gaps
    assert len(gaps) == MAX_GAPS
    assert sum(gap.missed for gap in gaps) == events.counter.missed == MAX_GAPS + 5
    assert (gaps[0].since, gaps[-1].until) == (START, START + MAX_GAPS + 5)


def test_a_backfilled_job_is_counted_and_not_found_again(events: Events) -> None:
    events("added", name="import")
    events.counter.backfill(Count.COMPLETED, {b"1": facts(), b"9": facts(b"cleanup")})
    assert events.counts() == {Count.ADDED: 1, Count.COMPLETED: 1}
    assert events.counts("cleanup") == {Count.COMPLETED: 1}
    assert events.counter.seen() == {b"1", b"9"}
    assert events.counter.jobs == {}


def test_a_gap_is_searched_with_room_for_clocks_that_differ(events: Events) -> None:
    gap = Gap(3, START + 10_000, START + 20_000)
    since, until = events.counter.search_window(gap)
    assert (since, until) == (gap.since - CLOCK_SKEW_MS, gap.until + CLOCK_SKEW_MS)
    events("drained", at=20_000 + 2 * CLOCK_SKEW_MS - 1)
    assert not events.counter.is_past(gap)
    events("drained", at=20_000 + 2 * CLOCK_SKEW_MS)
    assert events.counter.is_past(gap)


def test_since_when_a_job_waits_is_the_time_of_its_event(events: Events) -> None:
    events("added", name="import")("waiting", at=300)
    assert events.counter.ready_at(b"1", by_hash=5.0) == START + 300
    events("active", at=400)
    assert events.counter.ready_at(b"1", by_hash=5.0) is None
    # Of all that became ready since the start an event was read: this one was so before.
    assert events.counter.ready_at(b"2", by_hash=START + 10**6) == START
    assert events.counter.ready_at(b"2", by_hash=None) is None


def test_a_workers_clock_is_compared_with_the_event_of_the_same_script(events: Events) -> None:
    events("added", name="import")("waiting")("active", at=1000)
    events.counter.compare_clock(State.ACTIVE, b"1", START + 1250)
    assert events.counter.freeze().clock_offset == 0.25
    events.counter.compare_clock(State.ACTIVE, b"2", START)  # of which no event was read
    events("waiting", at=1500, prev="failed")
    events.counter.compare_clock(State.ACTIVE, b"1", START + 9000)  # active no more
    assert events.counter.freeze().clock_offset == 0.25
    events("active", at=1800)("completed", at=2000)
    events.counter.compare_clock(State.COMPLETED, b"1", START + 2250)
    assert events.counter.freeze().clock_offset == 0.25


def test_what_is_frozen_stays_the_same_object_until_something_is_counted(events: Events) -> None:
    events("added", name="import")
    frozen = events.counter.freeze()
    assert events.counter.freeze() is frozen
    events("added", "2", name="import")
    assert events.counter.freeze() is not frozen
    assert frozen.by_name["import"].values[Count.ADDED] == 1


def test_a_queue_that_is_removed_keeps_its_counts_for_when_it_comes_back(events: Events) -> None:
    events("added", name="import")("waiting")("active")("completed")
    assert events.counter.take_removed() == FinishedJobs(completed=1)
    assert events.counter.take_removed() == FinishedJobs()
    events.counter.put_away()
    frozen = events.counter.freeze()
    assert frozen.restored
    assert frozen.by_name["import"].restored
    assert events.counts()[Count.COMPLETED] == 1


def test_a_counter_goes_on_from_its_memory(events: Events) -> None:
    events("added", name="import")("waiting", at=0)
    events("added", "2", name="import")("failed", "2")
    again = Events()
    again.counter.remember(events.counter.memory())
    assert again.counts() == events.counts()
    assert again.counter.cursor.position == events.counter.cursor.position
    again._number = events._number
    again("active", at=7)("completed", at=8)("waiting", "2", prev="failed")
    assert again.buckets(LAYOUT.wait, LAYOUT.process) == [1, 0, 0, 7]
    assert again.counter.unresolved() == {b"2"}  # retried by hand: known from the memory
    assert again.counter.freeze().restored


@pytest.mark.parametrize("memory", [{}, {"position": 1}])
def test_a_memory_that_is_none_is_refused(memory: dict[str, object], events: Events) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        events.counter.remember(memory)


def test_failures_from_before_reasons_were_counted_are_no_increase_now(events: Events) -> None:
    for job_id in "123":
        events("failed", job_id)
    events.resolve(facts())
    memory = events.counter.memory()
    assert memory["reasons"] is None
    counter = QueueEventCounter(QUEUE, LAYOUT, JobBudget(1), max_names=1, max_reasons=3)
    counter.remember(memory)
    reasons = counter.freeze().reasons
    assert reasons is not None
    [(fingerprint, count)] = reasons.failed.items()
    assert (fingerprint, count.total, count.restored) == (UNKNOWN, 3, True)
