"""Requests come before polls and events, which go on all the same."""

from __future__ import annotations

import asyncio

import pytest

from exporter.concurrency import request_priority as priority_module
from exporter.concurrency.request_priority import RequestPriority


async def test_work_waits_for_the_answer_that_somebody_waits_for() -> None:
    request_priority, done = RequestPriority(), list[str]()

    async def answer() -> None:
        with request_priority.request():
            for _ in range(5):  # as often as an answer waits for Redis
                await asyncio.sleep(0)
            done.append("answer")

    async def work() -> None:
        await request_priority.yield_to_requests()
        done.append("work")

    await asyncio.gather(answer(), work())
    assert done == ["answer", "work"]


async def test_a_request_without_end_does_not_stop_the_work() -> None:
    request_priority = RequestPriority()
    with request_priority.request():
        for _ in range(10):
            await asyncio.wait_for(request_priority.yield_to_requests(), 10)


async def test_all_waiting_together_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll of 20,000 queues gives way more than a thousand times, and has six seconds."""
    monkeypatch.setattr(priority_module, "REFILL_RATE", 0.0)
    monkeypatch.setattr(priority_module, "MAX_BUDGET_SECONDS", 0.02)
    request_priority = RequestPriority()
    with request_priority.request():
        for _ in range(100_000):  # for eight minutes, if each of them waited
            await request_priority.yield_to_requests()


async def test_a_request_that_fails_is_no_request_any_more() -> None:
    request_priority = RequestPriority()
    with pytest.raises(ZeroDivisionError), request_priority.request():
        1 / 0  # noqa: B018
    with request_priority.request():
        assert request_priority._requests == 1
    assert request_priority._requests == 0
