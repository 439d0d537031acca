"""Counts in PostgreSQL that are not made at each poll: which are made, and when."""

from __future__ import annotations

from typing import Any

import pytest

from exporter.queues.queue import Queue, State
from exporter.stores.postgres import large_counts
from exporter.stores.postgres.errors import TooSlow
from exporter.stores.postgres.large_counts import (
    FIRST_CREDIT_SECONDS,
    LATE_SHARE,
    SHARE,
    LargeCounts,
)

QUEUES = [Queue.named("bullmq", name) for name in ("a", "b", "c")]
PLACES = [(queue, State.COMPLETED) for queue in QUEUES]


class Reader:
    """Answers with the numbers that it is given; each count takes so many `seconds`."""

    statement_ms = 200

    def __init__(self, **jobs: int) -> None:
        self.jobs, self.seconds, self.too_slow = jobs, 0.0, set[str]()
        self.asked: list[list[str]] = []

    async def read(self, _: Any, at: list[int], names: list[str], states: list[str]) -> Any:
        self.asked.append(names)
        if self.too_slow.intersection(names):
            raise TooSlow
        took = [self.seconds * (number + 1) for number in at]
        return [(*row[:1], self.jobs[row[1]], row[2]) for row in zip(at, names, took, strict=True)]


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in the first element."""
    clock = [1000.0]
    monkeypatch.setattr(large_counts.time, "monotonic", lambda: clock[0])
    return clock


def counts_with(reader: Reader) -> LargeCounts:
    return LargeCounts(reader)  # type: ignore[arg-type]


def marked(mark: object) -> dict[Any, object]:
    return dict.fromkeys(PLACES, mark)


async def test_a_queue_is_counted_again_when_it_has_events_or_after_a_while(
    now: list[float],
) -> None:
    reader = Reader(a=1, b=2, c=3)
    counts = counts_with(reader)
    await counts.refresh(marked(1))
    assert [counts.known(place) for place in PLACES] == [1, 2, 3]
    now[0] += 1
    await counts.refresh(marked(1))
    assert reader.asked == [["a", "b", "c"]]
    await counts.refresh(marked(1) | {PLACES[1]: 2})
    assert reader.asked[1:] == [["b"]]
    now[0] += large_counts.MAX_IDLE_SECONDS
    await counts.refresh(marked(1) | {PLACES[1]: 2})
    assert reader.asked[2:] == [["a", "c", "b"]]


async def test_no_more_time_is_spent_than_is_allowed(now: list[float]) -> None:
    reader = Reader(a=250_000, b=250_000, c=250_000)
    reader.seconds = 0.05
    counts = counts_with(reader)
    for mark in range(20_000):
        await counts.refresh(marked(mark))
        now[0] += 1
    # The first one counts all three, which were never counted; then each has its turn.
    first, *others = reader.asked
    assert first == ["a", "b", "c"]
    allowed = SHARE * 20_000
    assert allowed * 0.9 < len(others) * reader.seconds < allowed + FIRST_CREDIT_SECONDS
    assert {len(names) for names in others} == {1}
    for name in "abc":
        assert others.count([name]) == pytest.approx(len(others) / 3, abs=1)


async def test_counts_that_would_be_too_old_get_more_time(now: list[float]) -> None:
    reader = Reader(a=250_000, b=250_000, c=250_000)
    # In SHARE of the time all three would take 870 seconds, and older than 600 they are absent.
    reader.seconds = 0.29
    counts = counts_with(reader)
    for mark in range(20_000):
        await counts.refresh(marked(mark))
        assert [counts.known(place) for place in PLACES] == [250_000] * 3
        now[0] += 1
    spent = (len(reader.asked) - 1) * reader.seconds
    assert SHARE * 20_000 < spent < LATE_SHARE * 20_000 + FIRST_CREDIT_SECONDS


async def test_counts_of_jobs_that_wait_are_newer_and_none_is_left_out(now: list[float]) -> None:
    reader = Reader(a=250_000, b=250_000, c=250_000)
    reader.seconds = 0.05
    counts = counts_with(reader)
    places = [(QUEUES[0], State.WAITING), *PLACES[1:]]
    for mark in range(20_000):
        await counts.refresh(dict.fromkeys(places, mark))
        now[0] += 1
    _, *others = reader.asked
    by_name = {name: others.count([name]) for name in "abc"}
    assert by_name["b"] == pytest.approx(by_name["c"], abs=1)
    assert by_name["b"] > len(others) / 10
    assert by_name["a"] > 3 * by_name["b"]


async def test_what_cannot_be_counted_in_time_is_absent_and_harms_no_other(
    now: list[float],
) -> None:
    reader = Reader(a=1, b=2, c=3)
    reader.too_slow = {"b"}
    counts = counts_with(reader)
    await counts.refresh(marked(1))
    assert [counts.known(place) for place in PLACES] == [1, None, 3]
    reader.too_slow = set()
    now[0] += large_counts.RETRY_SECONDS
    await counts.refresh(marked(2))
    assert [counts.known(place) for place in PLACES] == [1, 2, 3]


async def test_an_old_count_is_absent_and_a_queue_that_is_gone_is_forgotten(
    now: list[float],
) -> None:
    counts = counts_with(Reader(a=1, b=2, c=3))
    await counts.refresh(marked(1))
    await counts.refresh({PLACES[0]: 1})
    assert [counts.known(place) for place in PLACES] == [1, None, None]
    now[0] += large_counts.MAX_AGE_SECONDS + 1
    assert counts.known(PLACES[0]) is None
