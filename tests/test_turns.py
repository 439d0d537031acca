"""Requests come before polls and events, which go on all the same."""

from __future__ import annotations

import asyncio

import pytest

from exporter.bullmq import turns as turns_module
from exporter.bullmq.turns import Turns


async def test_work_waits_for_the_answer_that_somebody_waits_for() -> None:
    turns, done = Turns(), list[str]()

    async def answer() -> None:
        with turns.request():
            for _ in range(5):  # as often as an answer waits for Redis
                await asyncio.sleep(0)
            done.append("answer")

    async def work() -> None:
        await turns.give_way()
        done.append("work")

    await asyncio.gather(answer(), work())
    assert done == ["answer", "work"]


async def test_a_request_without_end_does_not_stop_the_work() -> None:
    turns = Turns()
    with turns.request():
        for _ in range(10):
            await asyncio.wait_for(turns.give_way(), 10)


async def test_all_waiting_together_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll of 20,000 queues gives way more than a thousand times, and has six seconds."""
    monkeypatch.setattr(turns_module, "SHARE", 0.0)
    monkeypatch.setattr(turns_module, "MOST_PATIENCE", 0.02)
    turns = Turns()
    with turns.request():
        for _ in range(100_000):  # for eight minutes, if each of them waited
            await turns.give_way()


async def test_a_request_that_fails_is_no_request_any_more() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns.request():
        1 / 0  # noqa: B018
    with turns.request():
        assert turns._requests == 1
    assert turns._requests == 0
