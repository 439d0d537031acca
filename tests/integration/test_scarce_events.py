"""Queues that keep too few events: what finished there is counted by what else shows it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from exporter.queues.queue import Queue
from exporter.queues.tallies import Count, Tallies
from exporter.stores.bullmq.events import backfill
from exporter.stores.bullmq.keys import meta_key
from tests.support.bullmq import StartWork
from tests.support.counters import wait_following
from tests.support.exporters import Exporter, StartExporter
from tests.support.following import followed, quick
from tests.support.servers import Server
from tests.support.waiting import eventually

__all__ = ["quick"]  # its checks follow one another without a rest

TINY = Queue.named("bull", "tiny")
KEPT = {"removeOnComplete": 10_000}
GONE = {"removeOnComplete": True}
METRICS = {"metrics": {"maxDataPoints": 10}}


@pytest.fixture(autouse=True)
def quick_backfill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "CLOCK_SKEW_MS", 300)


def ended(tallies: Tallies, what: Count) -> int:
    return sum(each.values[what] for each in tallies.queues[TINY].by_name.values())


def limit_events(work: Any, client: Any, length: int) -> None:
    """As `streams: { events: { maxLen } }` of the application's Queue does."""
    work.add("tiny", "first", 1, KEPT)
    client.hset(meta_key(TINY), "opts.maxLenEvents", length)


@pytest.mark.parametrize(
    ("version", "length", "worker", "job"),
    [("bullmq5", 0, METRICS, GONE), ("bullmq6", 1, METRICS, GONE), ("bullmq6", 0, {}, KEPT)],
)
async def test_jobs_of_a_queue_whose_events_are_off_are_counted_once(
    server: Server,
    start_work: StartWork,
    caplog: pytest.LogCaptureFixture,
    version: str,
    length: int,
    worker: dict[str, Any],
    job: dict[str, Any],
) -> None:
    def do(command: str, *arguments: Any) -> Any:
        return asyncio.to_thread(getattr(work, command), *arguments)

    work = start_work(version, server.port)
    with server.client() as client:
        limit_events(work, client, length)
        async with followed(server.port, TINY) as until:
            # Only what finished two seconds after the start surely did not come before.
            await asyncio.sleep(2.5)
            await do("add", "tiny", "plain", 300, job)
            await until(lambda now: now.queues[TINY].events_off)
            await do("work", "tiny", {"concurrency": 20, **worker})
            await do("add", "tiny", "plain", 1000, job)
            await do("add", "tiny", "fails", 100, {"removeOnFail": 1000})
            await do("settle")

            def right(now: Tallies) -> bool:
                counts = ended(now, Count.COMPLETED), ended(now, Count.FAILED)
                return counts[0] >= 1301 and counts[1] >= 100

            await until(right)
            await asyncio.sleep(2)  # and nothing is counted twice
            tallies = await until(right)
    assert ended(tallies, Count.COMPLETED) == 1301
    assert ended(tallies, Count.FAILED) == 100
    assert tallies.queues[TINY].missed > 1100
    assert caplog.text.count("the queue keeps too few events to be read") == 1
    assert caplog.text.count("events were missed") <= 3
    assert caplog.text.count("missed jobs are counted") <= 3


async def test_events_that_are_switched_on_again_are_logged(
    server: Server, start_work: StartWork, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    work = start_work("bullmq5", server.port)
    with server.client() as client:
        limit_events(work, client, 0)
        async with followed(server.port, TINY) as until:
            work.add("tiny", "plain", 100)
            await until(lambda now: now.queues[TINY].events_off)
            client.hset(meta_key(TINY), "opts.maxLenEvents", 10_000)
            for _ in range(500):
                work.add("tiny", "plain", 1)
                await asyncio.sleep(0.02)
                if not (await until(lambda _: True)).queues[TINY].events_off:
                    break
    assert caplog.text.count("the queue keeps enough events again") == 1


def test_metrics_say_which_queues_keep_too_few_events(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    def off(exporter: Exporter) -> dict[tuple[str, ...], float]:
        return exporter.metrics.samples("bullmq_queue_events_off")

    work = start_work("bullmq6", server.port)
    work.add("ordinary", "plain", 1)
    with server.client() as client:
        limit_events(work, client, 1)
    exporter = wait_following(start_exporter(server.url))
    assert off(exporter) == {}
    work.add("tiny", "plain", 500)
    eventually(lambda: off(exporter) == {("tiny",): 1})
