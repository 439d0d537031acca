"""What a poll found: schedulers that are late, and facts that are read less often."""

from __future__ import annotations

import pytest

from exporter.queues.queue import Queue
from exporter.queues.snapshot import LATE_AFTER_MS, CollectorRun, QueueFacts, Scheduler, SlowFacts

NOW = 1_700_000_000_000
LATE = NOW - LATE_AFTER_MS - 1
MAIL, SYNC = Queue.named("bull", "mail"), Queue.named("bull", "sync")
GOOD, BAD = CollectorRun(success=True, duration=0.1), CollectorRun(success=False, duration=3.0)


def scheduler(
    *,
    next_run: int | None,
    next_added: int | None = None,
    limit: int | None = None,
    iterations: int | None = None,
    end_date: int | None = None,
) -> Scheduler:
    return Scheduler(
        *(MAIL, b"key", b"1", "key", None, None, 1000, None),
        limit=limit,
        end_date=end_date,
        iterations=iterations,
        next_run=next_run,
        next_added=next_added,
        last_run=None,
    )


@pytest.mark.parametrize(
    ("each", "overdue", "ended"),
    [
        (scheduler(next_run=None), False, False),
        (scheduler(next_run=NOW + 1), False, False),
        (scheduler(next_run=LATE + 1), False, False),  # a worker may still take it in time
        (scheduler(next_run=LATE), True, False),
        # A new one with an interval is planned for the start of the current interval.
        (scheduler(next_run=LATE, next_added=NOW - 5), False, False),
        (scheduler(next_run=LATE, limit=3, iterations=2), True, False),
        (scheduler(next_run=LATE, limit=3, iterations=3), False, True),
        (scheduler(next_run=LATE, limit=3), True, False),
        (scheduler(next_run=LATE, end_date=NOW - 1), False, True),
        (scheduler(next_run=LATE, end_date=NOW + 1), True, False),
        (scheduler(next_run=LATE + 1, end_date=NOW - 1), False, False),  # its last run is to come
    ],
)
def test_a_scheduler_is_overdue_or_has_run_for_the_last_time(
    each: Scheduler, overdue: bool, ended: bool
) -> None:
    assert (each.is_overdue(NOW), each.has_ended(NOW)) == (overdue, ended)


def test_facts_of_a_queue_are_those_of_all_collectors_that_know_it() -> None:
    facts = SlowFacts().after("workers", GOOD, {MAIL: 2}).after("retention", GOOD, {SYNC: {}})
    assert facts.of(MAIL) == QueueFacts(workers=2)
    assert facts.of(SYNC) == QueueFacts(retention={})
    assert facts.of(SYNC).workers is None


def test_a_collector_that_fails_takes_its_own_facts_with_it_and_no_others() -> None:
    before = SlowFacts().after("workers", GOOD, {MAIL: 2}).after("retention", GOOD, {MAIL: {}})
    after = before.after("workers", BAD, None)
    assert after.of(MAIL) == QueueFacts(retention={})
    assert after.runs == {"workers": BAD, "retention": GOOD}
    assert before.of(MAIL).workers == 2
    assert len({before.version, after.version, SlowFacts().version}) == 3
