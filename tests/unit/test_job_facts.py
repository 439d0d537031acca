"""What a job's hash says of its attempts."""

from __future__ import annotations

import pytest

from exporter.queues.job_facts import NO_JOB, JobFacts, number
from exporter.queues.text import MAX_SAFE_INTEGER


def facts(
    *,
    atm: bytes | None = None,
    attempts_made: bytes | None = None,
    ats: bytes | None = None,
    finished_on: bytes | None = None,
    locked: bool = False,
    opts: bytes | None = None,
) -> JobFacts:
    return JobFacts(b"import", atm, attempts_made, ats, None, finished_on, locked, opts=opts)


@pytest.mark.parametrize(
    ("hash_of_job", "retries"),
    [
        (NO_JOB, 0),
        (facts(), 0),
        (facts(atm=b"2"), 2),
        (facts(atm=b"2", finished_on=b"9"), 1),  # the last one ended the job
        (facts(attempts_made=b"2"), 2),  # before BullMQ 5.0
        (facts(atm=b"none"), 0),
    ],
)
def test_failed_attempts_that_another_one_follows(hash_of_job: JobFacts, retries: int) -> None:
    assert hash_of_job.retries == retries


@pytest.mark.parametrize(
    ("hash_of_job", "every"),
    [
        (facts(atm=b"2", ats=b"2"), True),
        (facts(atm=b"2", ats=b"3"), False),  # one start was given back
        (facts(atm=b"2", ats=b"3", locked=True), True),  # one start goes on
        (facts(atm=b"0", ats=b"0"), False),
        (NO_JOB, False),
    ],
)
def test_whether_every_start_was_a_failed_attempt(hash_of_job: JobFacts, every: bool) -> None:
    assert hash_of_job.every_start_failed is every


@pytest.mark.parametrize(
    "opts",
    [None, b"", b"{", b"[]", b"{}", b"null", b'{"attempts": null}', b'{"attempts": "x"}', b"\xff"],
)
def test_options_without_a_number_of_attempts_have_none(opts: bytes | None) -> None:
    assert facts(opts=opts).attempts == 0
    assert facts(opts=b'{"attempts": 3}').attempts == 3


def test_a_number_that_bullmq_cannot_have_counted_is_none() -> None:
    assert number(b"%d" % MAX_SAFE_INTEGER) == MAX_SAFE_INTEGER
    for raw in (None, b"", b"x", b"1.5", b"%d" % (MAX_SAFE_INTEGER + 1), b"9" * 5000):
        assert number(raw) == 0
