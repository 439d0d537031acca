"""How fast events are followed, beside how fast BullMQ can make them."""

from __future__ import annotations

import asyncio
import time
from statistics import median

import redis

from exporter.queues.queue import Queue
from exporter.queues.tallies import Count, Tallies
from exporter.settings import EventsSettings, RedisSettings
from exporter.stores.bullmq.events.follower import Follower
from exporter.stores.redis.client import RedisReader
from tests.bench.measured import add_events, exporting, fresh_server
from tests.support.bullmq import Node
from tests.support.exporters import Exporter

CONCURRENCY = 50
JOBS = 40_000
STREAM = 10_000  # BullMQ's default for `opts.maxLenEvents`
EVENTS_OF_A_JOB = 4  # added, waiting, active, completed


def load(port: int, queue: str) -> Node:
    """A process with jobs on a queue, and a worker that begins with `go`."""
    node = Node("load.mjs", "bullmq5", str(port), queue, str(JOBS), str(CONCURRENCY))
    assert node.first_words == "added"
    return node


def made_a_second(port: int) -> float:
    """Events that a worker writes in a second: `active` and `completed` of each job, and no less.

    The `added` and `waiting` before them are not timed: the worker has enough to do from the start.
    """
    worker = load(port, "made")
    with redis.Redis(port=port) as client:
        before = client.xinfo_stream("bull:made:events")["entries-added"]
        seconds = worker.ask("go")["seconds"]
        after = client.xinfo_stream("bull:made:events")["entries-added"]
        client.flushall()
    return float(after - before) / seconds


def fill(client: redis.Redis, queue: str, *, known: bool = True) -> None:
    """A stream of the default length, as a worker leaves it."""
    pipeline = client.pipeline(transaction=False)
    if known:
        pipeline.hset(f"bull:{queue}:meta", "version", "bullmq:5.56.3")
    for number in range(STREAM // EVENTS_OF_A_JOB):
        add_events(pipeline, queue, number)
    pipeline.execute()


async def followed_a_second(port: int, queues: int) -> float:
    """Events that the follower reads and books in a second, from full streams."""
    names = tuple(Queue.named("bull", f"full-{number}") for number in range(queues))
    reader = RedisReader(RedisSettings(host="127.0.0.1", port=port), connections=1)
    known: list[tuple[Queue, ...]] = [()]
    follower = Follower(reader, EventsSettings(), lambda: known[0], redis_timeout=3)
    task = asyncio.create_task(follower.run())
    await asyncio.sleep(0.3)
    known[0] = names  # queues that appear are read from their first entry
    began = time.perf_counter()
    while True:
        await asyncio.sleep(0.01)
        tallies = await follower.tallies()
        if tallies and tallies.events_read == queues * STREAM:
            break
    took = time.perf_counter() - began
    assert completed(tallies) == queues * STREAM // EVENTS_OF_A_JOB
    task.cancel()
    await asyncio.wait({task})
    await reader.close()
    return queues * STREAM / took


def completed(tallies: Tallies) -> int:
    return sum(
        tally.values[Count.COMPLETED]
        for queue in tallies.queues.values()
        for tally in queue.by_name.values()
    )


def speed(rounds: int) -> None:
    queues = 20
    made, followed = [], []
    with fresh_server() as server, server.client() as client:
        for _ in range(rounds):
            made.append(made_a_second(server.port))
            for number in range(queues):
                fill(client, f"full-{number}")
            followed.append(asyncio.run(followed_a_second(server.port, queues)))
            client.flushall()
    ratios = [one / other for one, other in zip(followed, made, strict=True)]
    print(f"\nEvents a second, {rounds} rounds in turn (median, least to most)")
    for what, figures in (
        (f"made by a BullMQ 5.56.3 worker of concurrency {CONCURRENCY}", made),
        (f"followed, {queues} streams of {STREAM:,}", followed),
    ):
        print(f"  {what:<56}{median(figures):>10,.0f}  {min(figures):,.0f} to {max(figures):,.0f}")
    print(f"  {'ratio':<56}{median(ratios):>10.1f}  {min(ratios):.1f} to {max(ratios):.1f}")


def full_rate() -> None:
    """Two workers at full speed beside the exporter: is anything missed?"""
    with fresh_server() as server:
        workers = [load(server.port, f"busy-{number}") for number in range(2)]
        with exporting(server.url) as exporter:
            time.sleep(2)
            cpu = exporter.metrics.value("process_cpu_seconds_total") or 0
            for worker in workers:
                worker.say("go")
            seconds = max(worker.hear()["seconds"] for worker in workers)
            settle(exporter)
            counted = sum_of(exporter, "bullmq_job_completed_total")
            missed = sum_of(exporter, "bullmq_exporter_events_missed_total")
            used = (exporter.metrics.value("process_cpu_seconds_total") or 0) - cpu
    print(f"\nTwo such workers at once at full speed, beside the exporter, {2 * JOBS:,} jobs")
    print(
        f"  {2 * JOBS / seconds:,.0f} jobs a second; completed {2 * JOBS:,}, counted {counted:,.0f}"
    )
    print(f"  events missed {missed:,.0f}; CPU of the exporter {used:.1f} s in {seconds:.1f} s")


def steady(seconds: int) -> None:
    """1,000 queues with ten events a second in all: memory and CPU over time."""
    with fresh_server() as server, server.client() as client:
        for number in range(1000):
            fill_one(client, number, 0)
        with exporting(server.url) as exporter:
            print(f"\n1,000 queues, 10 events a second in all, {seconds} s")
            time.sleep(2)
            began, jobs = time.monotonic(), 0
            cpu = exporter.metrics.value("process_cpu_seconds_total") or 0
            client.config_resetstat()
            for mark in (seconds // 10, seconds * 4 // 10, seconds * 7 // 10, seconds):
                while (now := time.monotonic() - began) < mark:
                    jobs += 1
                    fill_one(client, jobs * 7 % 1000, jobs)
                    time.sleep(max(0.0, began + jobs * 0.4 - time.monotonic()))
                memory = exporter.metrics.value("process_resident_memory_bytes") or 0
                used = (exporter.metrics.value("process_cpu_seconds_total") or 0) - cpu
                xread = client.info("commandstats")["cmdstat_xread"]["usec"] / 1000
                print(
                    f"  {mark:>4} s: {memory / 2**20:.1f} MiB, CPU {used / now:.1%} of a core,"
                    f" XREAD {xread / now:.2f} ms of Redis a second"
                )
            settle(exporter)
            counted = sum_of(exporter, "bullmq_job_completed_total")
            missed = sum_of(exporter, "bullmq_exporter_events_missed_total")
        print(f"  completed {jobs:,}, counted {counted:,.0f}, events missed {missed:,.0f}")


def fill_one(client: redis.Redis, queue: int, job: int) -> None:
    """One job's four events."""
    pipeline = client.pipeline(transaction=False)
    pipeline.hset(f"bull:quiet-{queue}:meta", "version", "bullmq:5.56.3")
    add_events(pipeline, f"quiet-{queue}", job)
    pipeline.execute()


def settle(exporter: Exporter) -> None:
    """Wait for the last reads, their checks, and the polls that report them.

    A new series is 0 in the first scrape that sees it.
    """
    for seconds in (12, 6):
        time.sleep(seconds)
        exporter.metrics.get("/metrics")


def sum_of(exporter: Exporter, metric: str) -> float:
    return sum(exporter.metrics.samples(metric).values())
