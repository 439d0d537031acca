"""Counts by reason: exact, bounded, and the same after a restart."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.queues.failure_reasons import FoldedReason
from exporter.queues.reason_counts import (
    FORGET_AFTER_MS,
    MAX_SEEN,
    OTHER,
    RESERVED,
    RETIRED,
    UNKNOWN,
    QueueReasons,
    ReasonCounts,
)

LIMIT = 3
HOUR = 3_600_000
START = 1_795_500_000_000

# A failure: which reason (None: unknown), and how long after the one before it (ms).
FAILURES = st.lists(
    st.tuples(st.none() | st.integers(0, 8), st.sampled_from([0, 1000, HOUR, 12 * HOUR])),
    max_size=120,
)


def later() -> int:
    """A present after all that fails here."""
    return START + 10_000 * HOUR


def reason(number: int) -> FoldedReason:
    return FoldedReason.of(f"reason {number}")


def of(counts: ReasonCounts, number: int) -> int | None:
    series = counts.freeze().get(reason(number).fingerprint)
    return series and series.total


@given(FAILURES, st.integers(0, 120))
@settings(max_examples=300)
def test_the_sum_is_the_number_of_failures_and_each_count_is_right(
    failures: list[tuple[int | None, int]], restart_at: int
) -> None:
    counts, at = ReasonCounts(LIMIT, later), START
    truth: Counter[int | None] = Counter()
    for number, (which, pause) in enumerate(failures):
        if number == restart_at:
            memory = counts.memory()
            counts = ReasonCounts(LIMIT, later)
            counts.remember(memory)
            assert counts.memory() == memory
        at += pause
        counts.count(None if which is None else reason(which), at)
        truth[which] += 1
        frozen = counts.freeze()
        assert frozen is counts.freeze()
        totals = {name: series.total for name, series in frozen.items()}
        assert sum(totals.values()) == counts.total == number + 1
        memory = counts.memory()
        kept = {name: each for name, _, each, *_ in memory["series"]}
        assert totals == kept | {name: each for name, each in memory["reserved"].items() if each}
        assert len(frozen.keys() - RESERVED.keys()) <= LIMIT
        for each in range(9):
            assert (of(counts, each) or 0) <= truth[each]
    unknown = counts.freeze().get(UNKNOWN)
    assert (unknown.total if unknown else 0) == truth[None]


def test_few_reasons_each_have_a_series_with_its_count() -> None:
    counts = ReasonCounts(LIMIT, later)
    for number in (0, 1, 2, 1, 2, 2):
        counts.count(reason(number), START)
    assert [of(counts, number) for number in range(3)] == [1, 2, 3]
    assert OTHER not in counts.freeze()


def test_a_reason_that_begins_takes_the_series_of_one_that_has_ended() -> None:
    counts = ReasonCounts(LIMIT, later)
    for number in (0, 0, 0, 0, 1, 1, 2):
        counts.count(reason(number), START)
    counts.count(reason(2), START + HOUR)
    counts.count(reason(0), START + HOUR)
    counts.count(reason(7), START + HOUR + 1)
    assert (of(counts, 7), counts.freeze()[OTHER].total) == (None, 1)  # it weighs as much
    counts.count(reason(7), START + HOUR + 2)
    assert of(counts, 7) == 1  # the first one counts where it was counted
    assert of(counts, 1) is None
    assert counts.freeze()[RETIRED].total == 2
    assert [of(counts, number) for number in (0, 2)] == [5, 2]


def test_a_chosen_event_id_far_in_the_future_does_not_keep_a_series_for_ever() -> None:
    now = START
    counts = ReasonCounts(LIMIT, lambda: now)
    # Redis gives the later entries of such a stream ids of the same time.
    far = START + 10_000 * HOUR
    for number in (0, 0, 0, 0, 1, 1, 2):
        counts.count(reason(number), far)
    assert [of(counts, number) for number in range(3)] == [4, 2, 1]
    restored = ReasonCounts(LIMIT, lambda: now)
    restored.remember(counts.memory())
    for each in (counts, restored):
        now = START
        each.count(reason(7), far)
        assert of(each, 7) is None
        now = START + 5 * HOUR
        each.count(reason(7), far)
        assert of(each, 7) == 1
    # Weights that were saved as of such a time.
    memory = counts.memory()
    memory["series"] = [(*series[:-1], far) for series in memory["series"]]
    saved = ReasonCounts(LIMIT, lambda: now)
    saved.remember(memory)
    now += 12 * HOUR
    saved.count(reason(8), far)
    assert of(saved, 8) == 1


def test_reasons_without_end_take_few_series() -> None:
    counts, exposed = ReasonCounts(LIMIT, later), set[str]()
    for number in range(5000):
        counts.count(reason(number), START + number * HOUR // 1000)  # five hours
        exposed |= counts.freeze().keys()
    assert len(exposed) <= LIMIT + 5 * LIMIT + LIMIT + len(RESERVED)
    assert len(counts._candidates) <= 50


def test_a_lower_limit_keeps_the_sum() -> None:
    counts = ReasonCounts(LIMIT, later)
    for number in (0, 1, 2, 2):
        counts.count(reason(number), START)
    fewer = ReasonCounts(1, later)
    fewer.remember(counts.memory())
    assert fewer.total == 4
    assert len(fewer.freeze().keys() - RESERVED.keys()) == 1


def test_a_series_that_there_was_none_of_before_a_restart_is_new() -> None:
    counts = ReasonCounts(LIMIT, later)
    counts.count(reason(0), START)
    again = ReasonCounts(LIMIT, later)
    again.remember(counts.memory())
    again.count(None, START)
    # What is not new shows its count at once, which Prometheus takes for no increase.
    restored = {name: series.restored for name, series in again.freeze().items()}
    assert restored == {reason(0).fingerprint: True, UNKNOWN: False}


def test_a_copy_is_made_anew_whatever_changes() -> None:
    reasons = QueueReasons(LIMIT, START, later)
    assert reasons.freeze() is None
    copies = []
    for change in (
        lambda: reasons.count_failed(reason(1), START),
        lambda: reasons.count_failed(None, START),
        lambda: reasons.count_retried(reason(1), START),
        lambda: reasons.failed.count_unknown(2),
        lambda: reasons.complete(failed=9, retried=9),
        reasons.mark_restored,
        lambda: reasons.count_failed(reason(1), START + HOUR),
    ):
        change()
        copies.append(reasons.freeze())
        assert reasons.freeze() is copies[-1]
    for before, after in pairwise(copies):
        assert before != after
    assert copies[-1] is not None
    assert copies[-1].seen[reason(1).fingerprint] == (START, START + HOUR)


def test_a_reason_is_seen_since_it_was_first_until_it_stays_away_for_seven_days() -> None:
    reasons = QueueReasons(LIMIT, START, later)
    fingerprint = reason(1).fingerprint

    def seen() -> tuple[int, int]:
        frozen = reasons.freeze()
        assert frozen is not None
        return frozen.seen[fingerprint]

    reasons.count_retried(reason(1), START)
    reasons.count_failed(reason(1), START + HOUR)
    assert seen() == (START, START + HOUR)
    reasons.count_failed(reason(1), back := START + HOUR + FORGET_AFTER_MS)
    assert seen() == (START, back)
    reasons.count_failed(reason(1), anew := back + FORGET_AFTER_MS + 1)
    assert seen() == (anew, anew)
    restored = QueueReasons(LIMIT, START + 99, later)
    restored.remember(reasons.memory())
    assert restored.freeze() is not None and restored.since == START
    assert restored.memory() == reasons.memory()


def test_it_is_remembered_of_so_many_reasons_when_they_were_seen() -> None:
    reasons = QueueReasons(LIMIT, START, later)
    for number in range(MAX_SEEN + 10):
        reasons.count_failed(reason(number), START + number)
    assert len(reasons.memory()["seen"]) == MAX_SEEN


def test_failures_that_were_counted_before_reasons_were_are_unknown() -> None:
    reasons = QueueReasons(LIMIT, START, later)
    reasons.count_failed(reason(1), START)
    reasons.complete(failed=5, retried=2)
    assert reasons.failed.total == 5
    assert reasons.failed.freeze()[UNKNOWN].total == 4
    assert reasons.retried.freeze()[UNKNOWN].total == 2


def test_without_failures_there_is_nothing_to_expose() -> None:
    assert QueueReasons(LIMIT, START, later).freeze() is None
