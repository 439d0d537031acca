"""Which failed jobs are remembered, and for how long."""

from __future__ import annotations

from exporter.queues.tallies import Tally
from exporter.queues.tracked_jobs import UNKNOWN_RETRIES, FailedJobs, TrackedJob


def job() -> TrackedJob:
    return TrackedJob(Tally("import", 1))


def test_a_failed_job_is_given_back_once() -> None:
    failed, one = FailedJobs(10), job()
    failed.remember(b"a:", b"1", one)
    assert failed.get(b"a:", b"1") is one
    assert failed.get(b"b:", b"1") is None
    assert failed.take(b"a:", b"1") is one
    assert failed.take(b"a:", b"1") is None
    assert failed.of_queue(b"a:") == {}


def test_beyond_the_limit_the_oldest_job_of_the_queue_that_failed_longest_ago_goes() -> None:
    failed = FailedJobs(3)
    for base, job_id in ((b"a:", b"1"), (b"a:", b"2"), (b"b:", b"3"), (b"b:", b"4")):
        failed.remember(base, job_id, job())
    assert [*failed.of_queue(b"a:")] == [b"2"]
    failed.remember(b"a:", b"5", job())  # now it is b that failed longest ago
    assert [*failed.of_queue(b"a:"), *failed.of_queue(b"b:")] == [b"2", b"5", b"4"]


def test_a_job_that_fails_again_is_one_job_and_a_recent_one() -> None:
    failed = FailedJobs(2)
    for job_id in (b"1", b"2", b"1", b"3"):
        failed.remember(b"a:", job_id, job())
    assert [*failed.of_queue(b"a:")] == [b"1", b"3"]


def test_jobs_of_a_removed_queue_make_room() -> None:
    failed = FailedJobs(2)
    failed.remember(b"a:", b"1", job())
    failed.remember(b"b:", b"2", job())
    failed.forget_queue(b"a:")
    failed.forget_queue(b"never:")
    failed.remember(b"b:", b"3", job())
    assert [*failed.of_queue(b"b:")] == [b"2", b"3"]


def test_a_failed_attempt_is_not_added_to_an_unknown_number() -> None:
    known, unknown = job(), job()
    unknown.retries = UNKNOWN_RETRIES
    for each in (known, unknown):
        each.note_failed_attempt()
    assert (known.retries, unknown.retries) == (1, UNKNOWN_RETRIES)
