"""What was seen of failures: right, bounded, and the same after a restart."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.queues.failure_evidence import (
    HOUR_MS,
    HOURS,
    MAX_BYTES,
    MAX_JOBS,
    MAX_NAMES,
    MAX_QUEUE_BYTES,
    MAX_REASON_BYTES,
    MAX_TEXT_BYTES,
    FailedAttempt,
    FailureEvidence,
    ReasonEvidence,
    excerpt,
)
from exporter.queues.failure_reasons import FoldedReason
from exporter.queues.reason_counts import FORGET_AFTER_MS
from exporter.queues.tallies import Layout
from exporter.state import state_format

BASE = b"bull:mail:"
START = 1_795_500_000_000
DAY = 24 * HOUR_MS


def attempt(number: int = 0, at: int = START, job: str = "1", **more: Any) -> FailedAttempt:
    given = {"name": "send", "attempts": 1, "is_final": True, "text": b"refused", **more}
    reason = FoldedReason.of(f"reason {number}")
    return FailedAttempt(raw_id=job.encode(), at=at, reason=reason, **given)


def of(evidence: FailureEvidence, number: int = 0, now: int = START) -> ReasonEvidence | None:
    reasons = {each.reason.text: each for each in evidence.of_queue(BASE, now).reasons}
    return reasons.get(f"reason {number}")


def known(evidence: FailureEvidence, number: int = 0, now: int = START) -> ReasonEvidence:
    found = of(evidence, number, now)
    assert found is not None
    return found


@dataclass
class Step:
    number: int
    pause: int
    is_final: bool
    job: int
    trace: bool


STEPS = st.lists(
    st.builds(
        Step,
        number=st.integers(0, 3),
        pause=st.sampled_from([0, 1000, HOUR_MS, 5 * HOUR_MS, 30 * HOUR_MS]),
        is_final=st.booleans(),
        job=st.integers(0, 5),
        trace=st.booleans(),
    ),
    max_size=60,
)


@given(STEPS, st.integers(0, 60))
@settings(max_examples=150, deadline=None)
def test_each_hour_has_its_number_and_the_newest_jobs_are_kept(
    steps: list[Step], restart_at: int
) -> None:
    evidence, at = FailureEvidence(START), START
    truth: list[tuple[Step, int]] = []
    for place, step in enumerate(steps):
        if place == restart_at:
            memory = evidence.memory(at)
            evidence = FailureEvidence(0)
            evidence.remember(memory)
            assert evidence.memory(at) == memory
            assert evidence.since == START
        at += step.pause
        failed = attempt(step.number, at, f"job {step.job}", is_final=step.is_final)
        evidence.note(BASE, failed, at)
        if step.trace:
            details: dict[str, Any] = {"trace": b"at x", "source": None}
            evidence.add_details(BASE, failed, name="send", attempts=2, **details)
        truth.append((step, at))

    for number in range(4):
        mine = [(step, when) for step, when in truth if step.number == number]
        if not mine or at - mine[-1][1] > FORGET_AFTER_MS:
            assert of(evidence, number, at) is None
            continue
        found = known(evidence, number, at)
        assert (found.first_seen, found.last_seen) == (mine[0][1], mine[-1][1])
        for is_final, numbers in ((True, found.failed), (False, found.retried)):
            counted = Counter(w // HOUR_MS for s, w in mine if s.is_final == is_final)
            last = at // HOUR_MS
            assert list(numbers) == [counted[last - HOURS + 1 + hour] for hour in range(HOURS)]
        final = sum(step.is_final for step, _ in mine)
        assert found.names == ({"send": final} if final else {})
        newest = list(dict.fromkeys(f"job {step.job}".encode() for step, _ in reversed(mine)))
        ids = [job.raw_id for job in found.jobs]
        assert ids[: MAX_JOBS - 1] == newest[: MAX_JOBS - 1]
        assert len(ids) == min(MAX_JOBS, len(newest))
        assert any(step.trace for step, _ in mine) == any(job.trace for job in found.jobs)


TEXTS = ["x", "é" * 3000, "😀" * 1000, "y" * 5000, "a😀" * 4000]
PLACES = st.integers(0, len(TEXTS) - 1)


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 3), PLACES, PLACES, st.integers(0, 30)),
        max_size=100,
    )
)
@settings(max_examples=60, deadline=None)
def test_it_is_bounded_whatever_fails(failures: list[tuple[int, int, int, int, int]]) -> None:
    limits = {"max_bytes": 150_000, "max_queue_bytes": 60_000}
    evidence = FailureEvidence(START, **limits)
    for place, (number, queue, text_at, trace_at, name) in enumerate(failures):
        base, at, text, trace = b"bull:%d:" % queue, START + place, TEXTS[text_at], TEXTS[trace_at]
        names = {"name": f"{name}{text}"[:200], "text": excerpt(text)}
        failed = attempt(number, at, f"job {place}", **names)
        evidence.note(base, failed, at)
        details: dict[str, Any] = {"trace": excerpt(trace), "source": f"{place}{trace}"[:200]}
        evidence.add_details(base, failed, name="x", attempts=1, **details)
        assert evidence.size <= limits["max_bytes"]
        newest = evidence.of_queue(base, at).reasons[-1]
        assert newest.jobs[0].raw_id == failed.raw_id
        assert max(len(newest.names), len(newest.sources)) <= MAX_NAMES
        bounded = [job.text for job in newest.jobs] + [job.trace or b"" for job in newest.jobs]
        assert max(map(len, bounded)) <= MAX_TEXT_BYTES
        assert sum(map(len, bounded)) <= MAX_REASON_BYTES
    memory = evidence.memory(START)
    assert len(state_format.msgpack.packb(memory)) <= limits["max_bytes"]
    smaller = FailureEvidence(0, max_bytes=40_000, max_queue_bytes=20_000)
    smaller.remember(memory)
    assert smaller.size <= 40_000
    again = FailureEvidence(0, **limits)
    again.remember(memory)
    assert (again.size, again.memory(START)) == (evidence.size, memory)


@pytest.mark.parametrize(("length", "jobs"), [(5, 1), (6000, 4)], ids=["short", "long"])
def test_hostile_reasons_take_no_more_memory_than_is_documented(length: int, jobs: int) -> None:
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    most = MAX_BYTES // 8
    evidence = FailureEvidence(START, max_bytes=most)
    for number in range(400 * (5 - jobs)):
        for place in range(jobs):
            text = excerpt(f"😀 {number} {place} " + "x" * length)
            at = START + number * 1000 + place
            job = f"{number}-{place}".ljust(min(length, 512))
            more = {"name": f"name {number} {place} 😀", "text": text}
            failed = attempt(number, at, job, **more)
            base = b"bull:%d:" % (number % 20)
            evidence.note(base, failed, at)
            details: dict[str, Any] = {"trace": text + b" ", "source": f"{number} {place} 😀"}
            evidence.add_details(base, failed, name="x", attempts=1, **details)
    packed = state_format.msgpack.packb(evidence.memory(START))
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert most - MAX_REASON_BYTES <= evidence.size <= most
    # The allocator's own share differs by a little from run to run.
    assert max(used - len(packed), len(packed)) <= 1.05 * most


def test_a_queue_with_ever_new_reasons_leaves_others_theirs() -> None:
    evidence = FailureEvidence(START)
    evidence.note(b"bull:quiet:", attempt(job="quiet"), START)
    for number in range(3000):
        evidence.note(BASE, attempt(number, text=b"x" * MAX_TEXT_BYTES), START)
    assert evidence.size <= MAX_QUEUE_BYTES + MAX_REASON_BYTES
    [quiet] = evidence.of_queue(b"bull:quiet:", START).reasons
    assert quiet.jobs[0].raw_id == b"quiet"
    assert of(evidence, 0) is None
    assert of(evidence, 2999) is not None


def test_the_stack_trace_of_an_earlier_attempt_stays_if_the_last_one_removes_the_job() -> None:
    evidence = FailureEvidence(START)
    first = attempt(job="7", is_final=False, attempts=1)
    evidence.note(BASE, first, START)
    evidence.add_details(BASE, first, name="send", attempts=1, trace=b"at x", source="s")
    evidence.note(BASE, attempt(job="7", at=START + 1, attempts=2), START + 1)
    [job] = known(evidence).jobs
    assert (job.is_final, job.attempts, job.trace) == (True, 2, b"at x")
    assert known(evidence).sources == {"s": 1}


def test_a_job_that_was_tried_often_is_one_job_of_its_source() -> None:
    evidence = FailureEvidence(START)
    for attempts in range(1, 6):
        # Others fail meanwhile, so that this job is not among the newest any more.
        for other in range(10):
            evidence.note(BASE, attempt(job=f"other-{other}", at=START + attempts), START)
        last = attempt(job="7", at=START + attempts, attempts=attempts, is_final=attempts == 5)
        evidence.note(BASE, last, START)
        evidence.add_details(BASE, last, name="send", attempts=attempts, trace=None, source="s")
    assert known(evidence).sources == {"s": 1}


def test_details_that_come_late_are_kept_where_others_have_failed_since() -> None:
    evidence = FailureEvidence(START)
    first = attempt(job="first", name=None)
    evidence.note(BASE, first, START)
    for number in range(5):
        evidence.note(BASE, attempt(job=f"later {number}"), START)
    evidence.add_details(BASE, first, name="send", attempts=1, trace=b"at x", source=None)
    jobs = known(evidence).jobs
    assert [job.raw_id for job in jobs] == [b"later 4", b"later 3", b"first"]
    assert known(evidence).names == {"send": 6}
    gone = attempt(99)
    evidence.add_details(BASE, gone, name="send", attempts=1, trace=b"at x", source=None)
    assert of(evidence, 99) is None


def test_an_event_from_the_future_moves_no_hours() -> None:
    evidence = FailureEvidence(START)
    evidence.note(BASE, attempt(), START)
    evidence.note(BASE, attempt(at=START + 1000 * DAY), START)
    assert known(evidence).last_seen == START
    assert sum(known(evidence).failed) == 2
    # Clocks may differ by a little.
    evidence.note(BASE, attempt(at=START + 1000), START)
    assert known(evidence).last_seen == START + 1000


def test_failures_of_a_window_are_those_of_its_hours() -> None:
    evidence = FailureEvidence(START)
    begin = START - START % HOUR_MS
    for hours_ago in (0, 0, 1, 5, 23):
        evidence.note(BASE, attempt(at=begin - hours_ago * HOUR_MS), begin)
    found = known(evidence, now=begin)
    assert found.failed_since(None) == 5
    assert found.failed_since(begin) == 2
    assert found.failed_since(begin - HOUR_MS) == 3
    assert found.failed_since(begin - DAY) == 5
    assert found.failed_since(begin + HOUR_MS) == 0


def test_a_reason_begins_anew_after_seven_days_without_it() -> None:
    evidence = FailureEvidence(START)
    evidence.note(BASE, attempt(), START)
    later = START + FORGET_AFTER_MS + 1
    assert of(evidence, now=later) is None
    evidence.note(BASE, attempt(at=later), later)
    assert known(evidence, now=later).first_seen == later
    assert not evidence.memory(later + FORGET_AFTER_MS + 1)["reasons"]
    assert evidence.size == 0


@pytest.mark.parametrize("length", [0, 1, MAX_TEXT_BYTES, MAX_TEXT_BYTES + 1, 50_000])
@pytest.mark.parametrize("letter", ["x", "é", "€", "😀", "\ud800"])
def test_an_excerpt_is_text_and_says_if_it_was_cut(letter: str, length: int) -> None:
    cut = excerpt(letter * length)
    assert len(cut) <= MAX_TEXT_BYTES
    whole = (letter * length).encode("utf-8", "backslashreplace")
    assert cut.decode() == whole.decode() or (cut.decode()[-1] == "…" and whole[:-1])


def test_the_state_file_holds_it_and_refuses_what_is_none(tmp_path: Path) -> None:
    evidence, layout = FailureEvidence(START), Layout((10,), (10,))
    evidence.note(BASE, attempt(name=None, attempts=None), START)
    saved = {"saved": START, "bounds": layout.bounds, state_format.QUEUES: {}}
    memory = evidence.memory(START)

    def decoded(memory: Any) -> state_format.Saved:
        parts = state_format.encode(saved | {state_format.EVIDENCE: memory})
        return state_format.decode(b"".join(parts), layout)

    again = FailureEvidence(0)
    held = decoded(memory).evidence
    assert held is not None
    again.remember(held)
    assert again.of_queue(BASE, START) == evidence.of_queue(BASE, START)
    assert decoded(None).evidence is None
    assert state_format.decode(b"".join(state_format.encode(saved)), layout).evidence is None
    [reason] = memory["reasons"]
    for place in range(len(reason)):
        for wrong in ({}, "x", -1.5, [1], [[1]]):
            damaged = list(reason)
            damaged[place] = wrong
            if damaged[place] == reason[place] or (place in (2, 1) and wrong == "x"):
                continue
            with pytest.raises(ValueError, match="evidence"):
                decoded({"since": START, "reasons": [damaged]})
