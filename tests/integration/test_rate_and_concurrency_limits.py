"""Limits of a queue, as a real BullMQ sets them: each is reported, or said to be unknown."""

from __future__ import annotations

import time
from typing import Any

import pytest

from exporter.queues.snapshot import QueueReading
from exporter.settings import RedisSettings
from exporter.stores.bullmq import keys
from exporter.stores.bullmq.poll import Poller
from exporter.stores.redis.client import RedisReader
from tests.support.bullmq import StartWork
from tests.support.exporters import Exporter, StartExporter
from tests.support.servers import Server
from tests.support.waiting import eventually

VERSIONS = ("bullmq5", "bullmq6")
UNTIL = "bullmq_queue_rate_limited_until_timestamp_seconds"
WINDOW_END = "bullmq_queue_rate_limit_window_end_timestamp_seconds"
HOUR = 3_600_000
LONG = 900_000


def listed_limits(exporter: Exporter, queue: str) -> dict[str, Any]:
    """The limits that the list of queues and the queue's own page report, which must agree."""
    queues = exporter.api.get("/v1/jobs/queues?detail=true").json["queues"]
    (in_list,) = (each["limits"] for each in queues if each["name"] == queue)
    of_queue = exporter.api.get(f"/v1/jobs/queues/{queue}?status=waiting&detail=true").json
    assert "limits" not in exporter.api.get(f"/v1/jobs/queues/{queue}").json
    times = ("rateLimitedUntil", "rateWindowEnd")
    for name, value in in_list.items():
        close = name in times and value is not None  # each request reads it anew
        assert of_queue["limits"][name] == (pytest.approx(value, abs=5000) if close else value)
    return dict(in_list)


def expiry(server: Server, queue: str) -> Any:
    """When the limiter expires, as far as one can say from outside."""
    with server.client() as client:
        left = client.pttl(f"bull:{queue}:limiter")
    assert left > 0
    return pytest.approx(time.time() + left / 1000, abs=5)


def test_a_rate_limit_set_by_a_worker_is_reported_until_it_ends(
    any_server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    works = {f"limited-{version}": start_work(version, any_server.port) for version in VERSIONS}
    for queue, work in works.items():
        work.addJobs(queue, [{"name": "rate-limits", "data": {"limit": LONG}}] * 6)
        work.work(queue)
    for queue, work in works.items():
        eventually(lambda queue=queue, work=work: work.call(queue, "getRateLimitTtl") > 0)
        eventually(lambda queue=queue, work=work: work.call(queue, "getWaitingCount") == 6)
        work.close()  # or it would begin the limit anew
    exporter = start_exporter(any_server.url)
    eventually(lambda: len(exporter.metrics.samples(UNTIL)) == len(works))
    for queue in works:
        until = exporter.metrics.value(UNTIL, queue=queue)
        assert until == expiry(any_server, queue)
        limits = listed_limits(exporter, queue)
        assert limits.pop("rateLimitedUntil") / 1000 == pytest.approx(until, abs=5)
        assert set(limits.values()) == {None}
        with any_server.client() as client:
            client.delete(f"bull:{queue}:limiter")
    eventually(lambda: exporter.metrics.samples(UNTIL) == {})


def test_a_global_rate_limit_and_whether_it_is_reached_are_reported(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    work = start_work("bullmq6", server.port)
    for queue, most in (("reached", 2), ("not-reached", 100)):
        work.call(queue, "setGlobalRateLimit", most, HOUR)
        work.add(queue, "import", 2)
        work.work(queue)
    with server.client() as client:
        for queue in ("reached", "not-reached"):
            eventually(lambda queue=queue: client.get(f"bull:{queue}:limiter") == b"2")
    work.close()
    more = start_work("bullmq6", server.port)
    for queue in ("reached", "not-reached"):
        more.add(queue, "import", 3)
    exporter = start_exporter(server.url)
    assert exporter.metrics.samples("bullmq_queue_rate_limit_max") == {
        ("reached",): 2,
        ("not-reached",): 100,
    }
    durations = exporter.metrics.samples("bullmq_queue_rate_limit_duration_seconds")
    assert durations == {("reached",): 3600, ("not-reached",): 3600}
    assert exporter.metrics.samples(UNTIL) == {("reached",): expiry(server, "reached")}
    assert exporter.metrics.samples(WINDOW_END) == {}
    reached = listed_limits(exporter, "reached")
    assert (reached["rateMax"], reached["rateDuration"]) == (2, HOUR)
    assert listed_limits(exporter, "not-reached")["rateLimitedUntil"] is None


def test_a_workers_own_limiter_has_a_window_and_whether_it_is_reached_is_unknown(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    for version in VERSIONS:
        work = start_work(version, server.port)
        work.add(version, "import", 5)
        work.work(version, {"limiter": {"max": 2, "duration": HOUR}})
    with server.client() as client:
        for version in VERSIONS:
            eventually(lambda version=version: client.get(f"bull:{version}:limiter") == b"2")
    exporter = start_exporter(server.url)
    eventually(lambda: len(exporter.metrics.samples(WINDOW_END)) == len(VERSIONS))
    assert exporter.metrics.samples(UNTIL) == {}
    for version in VERSIONS:
        end = exporter.metrics.value(WINDOW_END, queue=version)
        assert end == expiry(server, version)
        limits = listed_limits(exporter, version)
        assert limits["rateWindowEnd"] / 1000 == pytest.approx(end, abs=5)


def test_a_concurrency_limit_is_reported_whether_or_not_there_is_work(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    for version in VERSIONS:
        work = start_work(version, server.port)
        for queue, limit in (("busy", 1), ("idle", 20), ("stopped", 0)):
            work.call(f"{queue}-{version}", "setGlobalConcurrency", limit)
        work.add(f"free-{version}", "import", 1)
        work.add(f"busy-{version}", "sleeps-600000", 3)
        work.work(f"busy-{version}", {"concurrency": 5})
    exporter = start_exporter(server.url)
    for version in VERSIONS:
        busy = f"busy-{version}"
        for state, number in (("active", 1), ("waiting", 2)):
            eventually(
                lambda busy=busy, state=state, number=number: (
                    exporter.metrics.value("bullmq_job_count", queue=busy, state=state) == number
                )
            )
        assert listed_limits(exporter, busy)["concurrency"] == 1
        assert listed_limits(exporter, f"free-{version}")["concurrency"] is None
    assert exporter.metrics.samples("bullmq_queue_concurrency_limit") == {
        (f"{queue}-{version}",): limit
        for version in VERSIONS
        for queue, limit in (("busy", 1), ("idle", 20), ("stopped", 0))
    }


def test_a_limit_that_is_no_number_is_absent_and_said_and_infinity_is_none(
    server: Server, start_exporter: StartExporter
) -> None:
    with server.client() as client:
        for queue, limit in (("odd", "many"), ("free", "Infinity"), ("wrong", "2"), ("open", "2")):
            client.hset(f"bull:{queue}:meta", mapping={"version": "bullmq:6.7.0", "max": limit})
            client.rpush(f"bull:{queue}:wait", "1")
        client.set("bull:odd:limiter", "soon", px=LONG)
        client.lpush("bull:wrong:limiter", "1")
        client.set("bull:open:limiter", "5")  # without an end it limits nothing
    exporter = start_exporter(server.url)
    eventually(lambda: exporter.lines("value unreadable; omitted"))
    unreadable = {
        (line["queue"], line["value"])
        for line in exporter.lines("value unreadable; omitted")
        if "limit" in line["value"]
    }
    assert unreadable == {("odd", "rate limit"), ("odd", "limiter"), ("wrong", "limiter")}
    limits = exporter.metrics.samples("bullmq_queue_rate_limit_max")
    assert limits == {("wrong",): 2, ("open",): 2}
    assert exporter.metrics.samples(UNTIL) == exporter.metrics.samples(WINDOW_END) == {}


async def test_a_limiter_is_looked_for_only_where_it_may_hold_jobs_back(server: Server) -> None:
    names = ("rests", "works", "paused", "limited")
    queues = [keys.Queue.named("bull", name) for name in names]
    redis = RedisReader(RedisSettings(port=server.port), connections=2)
    poller = Poller(redis, max_schedulers=10)

    async def read() -> tuple[QueueReading, ...]:
        return await poller.poll(queues, configured=frozenset())

    with server.client() as client:
        for name in names:
            client.hset(f"bull:{name}:meta", "version", "bullmq:5.56.3")
            client.set(f"bull:{name}:limiter", 2**53 - 1, px=LONG)
        client.delete("bull:works:limiter")
        client.hset("bull:paused:meta", "paused", "1")
        client.zadd("bull:rests:failed", {"1": 1})
        for name in names[1:]:
            client.rpush(f"bull:{name}:wait", "1")
        client.rpush("bull:works:active", "2")
        client.hset("bull:works:2", "processedOn", "1700000000000")
        first = {reading.queue.name: reading for reading in await read()}
        assert [n for n, r in first.items() if r.limits.rate_limited_until] == ["limited"]
        client.config_resetstat()
        again = await read()
        stats = client.info("commandstats")
        assert (stats["cmdstat_getrange"]["calls"], stats["cmdstat_pttl"]["calls"]) == (1, 1)
        # The same end, and so the same reading: nothing is rendered anew.
        for reading in again:
            assert reading is first[reading.queue.name]
        # Once seen, it is read on while jobs are active.
        client.rpush("bull:limited:active", "3")
        (limited,) = (each for each in await read() if each.queue.name == "limited")
        assert limited.limits.rate_limited_until
    await redis.close()


def test_prioritized_jobs_of_a_paused_queue_are_counted_as_bullmq_counts_them(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    """BullMQ keeps them in `prioritized`, paused or not; the alert counts both states."""
    truths = {}
    for version in VERSIONS:
        work = start_work(version, server.port)
        work.add(version, "import", 9, {"priority": 5})
        work.call(version, "pause")
        truths[version] = work.call(version, "getJobCounts")
    exporter = start_exporter(server.url)
    for version, truth in truths.items():
        assert exporter.metrics.value("bullmq_queue_paused", queue=version) == 1
        counts = exporter.metrics.samples("bullmq_job_count", queue=version)
        assert {state: counts[state,] for state in truth} == truth
        assert (counts["prioritized",], counts["paused",]) == (9, 0)
        page = exporter.api.get(f"/v1/jobs/queues/{version}?status=prioritized&detail=true").json
        assert (page["paused"], page["pagination"]["totalJobs"]) == (True, 9)
