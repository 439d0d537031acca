"""Odd layouts, odd names, broken keys: each is reported truly, or left out and said."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any
from urllib.parse import quote

import pytest
from bullmq import Queue, Worker
from redis.asyncio import Redis as AsyncRedis

from exporter.queues.jobs import Job, ReadLimits
from exporter.queues.queue import State
from exporter.queues.snapshot import QueueReading
from exporter.settings import RedisSettings
from exporter.stores.bullmq import jobs as jobs_module
from exporter.stores.bullmq import keys
from exporter.stores.bullmq.jobs import read_page
from exporter.stores.bullmq.poll import Poller
from exporter.stores.bullmq.waiting import WaitingJobs
from exporter.stores.redis.client import RedisReader
from tests.support.bullmq import StartWork
from tests.support.exporters import Exporter, StartExporter
from tests.support.servers import Server
from tests.support.waiting import eventually


def count(exporter: Exporter, queue: str, state: str) -> float | None:
    return exporter.metrics.value("bullmq_job_count", queue=queue, state=state)


def jobs(exporter: Exporter, queue: str, status: str, **query: Any) -> dict[str, Any]:
    rest = "".join(f"&{name}={value}" for name, value in query.items())
    answer = exporter.api.get(f"/v1/jobs/queues/{quote(queue, safe='')}?status={status}{rest}")
    assert answer.status == 200, answer.body
    return dict(answer.json)


def ids(page: dict[str, Any]) -> list[str]:
    return [job["id"] for job in page["jobs"]]


def add_job(client: Any, queue: str, job_id: str, **fields: Any) -> None:
    job = {"name": "a-job", "data": "{}", "opts": "{}", "timestamp": 1_700_000_000_000}
    client.hset(f"bull:{queue}:{job_id}", mapping=job | fields)


async def test_the_python_clients_queues_are_reported_as_it_reports_them(
    any_server: Server, start_exporter: StartExporter
) -> None:
    options = {"connection": {"host": "127.0.0.1", "port": any_server.port}}
    queue = Queue("from-python", options)

    async def work(job: Any, _: str) -> dict[str, str]:
        if job.name == "fails":
            raise ValueError(f"no mailbox {job.data['i']}")
        return {"done": job.name}

    worker = Worker("from-python", work, {**options, "concurrency": 3})
    try:
        for i in range(9):
            await queue.add("fails" if i % 3 == 0 else "works", {"i": i}, {"attempts": 2})
        for _ in range(3000):
            counts = await queue.getJobCounts("completed", "failed")
            if counts == {"completed": 6, "failed": 3}:
                break
            await asyncio.sleep(0.02)
        await queue.add("later", {}, {"delay": 3_600_000})
        exporter = start_exporter(any_server.url)
        truth = await queue.getJobCounts("active", "completed", "delayed", "failed", "prioritized")
        assert truth == {"active": 0, "completed": 6, "delayed": 1, "failed": 3, "prioritized": 0}
        for state, number in truth.items():
            assert count(exporter, "from-python", state) == number
        # The Python client gives both connections of a worker its name, and counts 2; none while it
        # opens them anew, as it does when the test has kept it waiting.
        for _ in range(3000):
            if len(workers := await queue.get_workers()) == 2:
                break
            await asyncio.sleep(0.02)
        assert len(workers) == 2

        def counted() -> bool:
            return exporter.metrics.value("bullmq_queue_workers", queue="from-python") == 1

        await asyncio.to_thread(eventually, counted)
        for state in ("completed", "failed"):
            reported = jobs(exporter, "from-python", state)["jobs"]
            true = await queue.getJobs([state], 0, -1, True)
            assert [
                (j["id"], j["name"], j["data"], j["attemptsMade"], j["failedReason"])
                for j in reported
            ] == [(j.id, j.name, j.data, j.attemptsMade, j.failedReason) for j in true]
            assert [j["stacktrace"] for j in reported] == [j.stacktrace or [] for j in true]
    finally:
        await worker.close(force=True)
        await queue.close()


async def test_a_job_made_ready_by_hand_has_no_age_rather_than_a_wrong_one(
    server: Server, start_exporter: StartExporter
) -> None:
    options = {"connection": {"host": "127.0.0.1", "port": server.port}}
    queues = {name: Queue(name, options) for name in ("promoted", "retried", "fresh")}

    async def work(job: Any, _: str) -> None:
        raise ValueError("no")

    later = await queues["promoted"].add("later", {}, {"delay": 86_400_000})
    await later.promote()
    week_ago = int(time.time() * 1000) - 7 * 86_400_000
    failing = await queues["retried"].add("fails", {}, {"timestamp": week_ago})
    worker = Worker("retried", work, options)
    for _ in range(3000):
        if await queues["retried"].getFailedCount():
            break
        await asyncio.sleep(0.02)
    await worker.close(force=True)
    await (await queues["retried"].getJob(failing.id)).retry()
    fresh = await queues["fresh"].add("fresh", {}, {})
    exporter = start_exporter(server.url)
    for name in queues:
        assert count(exporter, name, "waiting") == 1
    ages = exporter.metrics.samples("bullmq_queue_oldest_waiting_timestamp_seconds")
    assert ages == {("fresh",): fresh.timestamp / 1000}
    for queue in queues.values():
        await queue.close()


def test_the_marker_of_before_5_0_is_not_a_job(
    server: Server, start_exporter: StartExporter
) -> None:
    with server.client() as client:
        for name in ("old", "empty"):
            client.hset(f"bull:{name}:meta", "opts.maxLenEvents", "10000")
            client.rpush(f"bull:{name}:wait", "0:1795482933152")
        for number in range(3):
            add_job(client, "old", f"job-{number}", timestamp=1_700_000_000_000 + number)
            client.lpush("bull:old:wait", f"job-{number}")
    exporter = start_exporter(server.url)
    assert count(exporter, "old", "waiting") == 3
    assert count(exporter, "empty", "waiting") == 0
    oldest = "bullmq_queue_oldest_waiting_timestamp_seconds"
    assert exporter.metrics.samples(oldest) == {("old",): 1_700_000_000.0}
    assert ids(jobs(exporter, "old", "waiting")) == ["job-0", "job-1", "job-2"]
    assert ids(jobs(exporter, "old", "waiting", order="desc")) == ["job-2", "job-1", "job-0"]
    assert ids(jobs(exporter, "old", "waiting", limit=2, page=2)) == ["job-2"]
    with server.client() as client:
        assert client.llen("bull:old:wait") == 4, "the marker is BullMQ's to remove"


def test_paused_jobs_of_both_layouts_in_one_queue_are_all_paused_oldest_first(
    server: Server, start_exporter: StartExporter
) -> None:
    """After an upgrade from 5.x to 6.x while the queue was paused."""
    with server.client() as client:
        client.hset("bull:q:meta", mapping={"version": "bullmq:6.7.0", "paused": "1"})
        for key, numbers in (("paused", range(5)), ("wait", range(5, 9))):
            for number in numbers:
                add_job(client, "q", f"j{number}")
                client.lpush(f"bull:q:{key}", f"j{number}")
    exporter = start_exporter(server.url)
    everything = [f"j{number}" for number in range(9)]
    assert (count(exporter, "q", "paused"), count(exporter, "q", "waiting")) == (9, 0)
    assert ids(jobs(exporter, "q", "paused")) == everything
    assert ids(jobs(exporter, "q", "paused", order="desc")) == everything[::-1]
    for order, expected in (("asc", everything), ("desc", everything[::-1])):
        pages = [jobs(exporter, "q", "paused", limit=2, page=n, order=order) for n in range(1, 7)]
        assert [job_id for page in pages for job_id in ids(page)] == expected
    assert jobs(exporter, "q", "waiting")["jobs"] == []
    # Resumed, with jobs left over: BullMQ moves back at most 7,000 at once.
    with server.client() as client:
        client.hdel("bull:q:meta", "paused")
    eventually(lambda: count(exporter, "q", "waiting") == 4)
    assert count(exporter, "q", "paused") == 5
    assert ids(jobs(exporter, "q", "paused")) == everything[:5]


ODD_AGES = [
    "lifo",
    "promoted",
    "promoted early",
    "retried",
    "retried after backoff",
    "retried by hand",
    "prioritized",
    "starving",
    "starving in the middle",
    "behind those given back",
    "starving last",
    "stalled",
    "behind a ghost",
    "nothing",
]


def test_the_oldest_waiting_job_is_found_where_it_is_not_last_in_line(
    server: Server, start_exporter: StartExporter
) -> None:
    hour = 3_600_000
    now = int(time.time() * 1000)
    with server.client() as client:
        for name in ODD_AGES:
            client.hset(f"bull:{name}:meta", "version", "bullmq:5.56.3")
        # `lifo` adds at the end that is taken from.
        for number in range(3):
            add_job(client, "lifo", f"j{number}", timestamp=now - hour + number)
            client.rpush("bull:lifo:wait", f"j{number}")
        # Added a day ago with a delay of a day less one minute; promotion has set `delay` to 0.
        delay = 24 * hour - 60_000
        opts = json.dumps({"delay": delay, "backoff": {"type": "fixed", "delay": 7}})
        add_job(client, "promoted", "j", timestamp=now - 24 * hour, opts=opts, delay=0)
        client.lpush("bull:promoted:wait", "j")
        # Added a day ago, last taken a minute ago.
        add_job(client, "retried", "j", timestamp=now - 24 * hour, processedOn=now - 60_000, atm=1)
        client.lpush("bull:retried:wait", "j")
        # Job.promote(): nobody notes when.
        opts = json.dumps({"delay": 24 * hour})
        add_job(client, "promoted early", "j", timestamp=now - hour, opts=opts, delay=0)
        client.lpush("bull:promoted early:wait", "j")
        # The third attempt began two minutes ago and failed at once; the backoff was 4 x 15 s.
        opts = json.dumps({"backoff": {"type": "exponential", "delay": 15_000}})
        started = {"processedOn": now - 120_000, "atm": 3, "ats": 3}
        add_job(client, "retried after backoff", "j", timestamp=now - hour, opts=opts, **started)
        client.lpush("bull:retried after backoff:wait", "j")
        # Job.retry() deletes processedOn: nobody notes when.
        add_job(client, "retried by hand", "j", timestamp=now - 24 * hour, atm=5, ats=5)
        client.lpush("bull:retried by hand:wait", "j")
        add_job(client, "prioritized", "j", timestamp=now - hour, priority=3)
        client.zadd("bull:prioritized:prioritized", {"j": 3 * 2**32 + 1})
        for number, (priority, age) in enumerate([(1, 1000), (9, 3 * hour), (9, 2000)]):
            add_job(client, "starving", f"j{number}", timestamp=now - age, priority=priority)
            score = priority * 2**32 + number
            client.zadd("bull:starving:prioritized", {f"j{number}": score})
        ages = [(1, 1000), (5, 3 * hour), (5, 2000), (10, 2000)]
        for number, (priority, age) in enumerate(ages):
            add_job(client, "starving in the middle", f"j{number}", timestamp=now - age)
            score = priority * 2**32 + number
            client.zadd("bull:starving in the middle:prioritized", {f"j{number}": score})
        # A rate limit gives jobs back to the front of their priority.
        for number, (counter, age) in enumerate([(0, 1000), (0, 2000), (7, 2 * hour), (8, hour)]):
            add_job(client, "behind those given back", f"j{number}", timestamp=now - age)
            score = 2 * 2**32 + counter
            client.zadd("bull:behind those given back:prioritized", {f"j{number}": score})
        # More priorities than are looked at.
        for priority in range(1, 40):
            age = hour if priority == 39 else 1000 * priority
            add_job(client, "starving last", f"j{priority}", timestamp=now - age)
            score = priority * 2**32 + 3
            client.zadd("bull:starving last:prioritized", {f"j{priority}": score})
        # Taken two hours ago and given back when its worker was gone: nobody notes when.
        started = {"processedOn": now - 2 * hour, "atm": 0, "ats": 1, "stc": 1}
        add_job(client, "stalled", "j", timestamp=now - 3 * hour, **started)
        client.rpush("bull:stalled:wait", "j")
        for number, written in enumerate(("-1e308", "nan", now - hour)):
            add_job(client, "beside what is no time", f"j{number}", timestamp=written)
            client.rpush("bull:beside what is no time:wait", f"j{number}")
        add_job(client, "behind a ghost", "j", timestamp=now - hour)
        client.rpush("bull:behind a ghost:wait", "ghost", "j", "ghost", "ghost")
        add_job(client, "behind a ghost", "running", processedOn=now - hour)
        client.rpush("bull:behind a ghost:active", "running", "ghost")
    exporter = start_exporter(server.url)
    expected = {
        ("lifo",): (now - hour) / 1000,
        ("promoted",): (now - 60_000) / 1000,
        ("retried",): (now - 60_000) / 1000,
        ("retried after backoff",): (now - 60_000) / 1000,
        ("prioritized",): (now - hour) / 1000,
        ("starving",): (now - 3 * hour) / 1000,
        ("starving in the middle",): (now - 3 * hour) / 1000,
        ("behind those given back",): (now - 2 * hour) / 1000,
        ("starving last",): (now - hour) / 1000,
        ("beside what is no time",): (now - hour) / 1000,
        ("behind a ghost",): (now - hour) / 1000,
    }
    # At each priority of a queue some are looked at in each poll.
    oldest = "bullmq_queue_oldest_waiting_timestamp_seconds"
    eventually(lambda: exporter.metrics.samples(oldest) == expected)
    active = exporter.metrics.samples("bullmq_queue_oldest_active_timestamp_seconds")
    assert active == {("behind a ghost",): (now - hour) / 1000}


SUFFIXES = {
    "wait": {"waiting"},
    "paused": {"paused"},
    "active": {"active"},
    "delayed": {"delayed"},
    "prioritized": {"prioritized"},
    "waiting-children": {"waiting-children"},
    "completed": {"completed"},
    "failed": {"failed"},
    "meta": {"waiting", "paused"},  # without the flag nobody knows which of the two
    "repeat": set[str](),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_key_of_the_wrong_type_makes_that_value_absent_and_is_logged_once(
    server: Server, start_exporter: StartExporter, suffix: str
) -> None:
    with server.client() as client:
        client.hset("bull:q:meta", "version", "bullmq:5.56.3")
        client.hset("bull:healthy:meta", "version", "bullmq:5.56.3")
        client.delete(f"bull:q:{suffix}")
        client.set(f"bull:q:{suffix}", "not what BullMQ writes")
    exporter = start_exporter(server.url)
    reported = {state for (state,) in exporter.metrics.samples("bullmq_job_count", queue="q")}
    everything = {state for values in SUFFIXES.values() for state in values}
    assert everything - reported == SUFFIXES[suffix]
    assert len(exporter.metrics.samples("bullmq_job_count", queue="healthy")) == 8
    assert (exporter.metrics.value("bullmq_queue_schedulers", queue="q") is None) == (
        suffix == "repeat"
    )
    assert exporter.metrics.value("bullmq_exporter_unreadable_values") >= 1
    for status in sorted(everything):
        page = jobs(exporter, "q", status)
        assert page["jobs"] == []
        assert page["pagination"]["totalJobs"] == (None if status in SUFFIXES[suffix] else 0)
        for state in everything:
            assert page["counts"][state] == (None if state in SUFFIXES[suffix] else 0)
    polls = exporter.metrics.value("bullmq_exporter_poll_duration_seconds_count")
    eventually(
        lambda: exporter.metrics.value("bullmq_exporter_poll_duration_seconds_count") > polls + 2
    )
    logged = [line["value"] for line in exporter.lines("value unreadable; omitted")]
    assert logged
    assert len(logged) == len(set(logged)), "once each"


@pytest.mark.parametrize(
    ("suffix", "state"),
    [
        ("wait", State.WAITING),
        ("paused", State.PAUSED),
        ("active", State.ACTIVE),
        ("delayed", State.DELAYED),
        ("prioritized", State.PRIORITIZED),
        ("waiting-children", State.WAITING_CHILDREN),
        ("repeat", None),
    ],
)
async def test_what_comes_into_a_queue_at_rest_is_reported_by_the_next_poll(
    server: Server, suffix: str, state: State | None
) -> None:
    """At rest there are but finished jobs, and only these are counted one by one."""
    queue = keys.Queue.named("bull", "q")
    redis = RedisReader(RedisSettings(port=server.port), connections=2)
    poller = Poller(redis, max_schedulers=10)

    async def read() -> QueueReading:
        (reading,) = await poller.poll([queue], configured=frozenset())
        return reading

    at_rest = {each: 0 for each in State} | {State.FAILED: 2, State.COMPLETED: 1}
    with server.client() as client:
        client.hset("bull:q:meta", "version", "bullmq:5.56.3")
        client.zadd("bull:q:failed", {"1": 1, "2": 2})
        client.zadd("bull:q:completed", {"3": 3})
        for _ in range(2):
            for _ in range(3):
                assert (await read()).counts == at_rest
            if suffix in ("wait", "paused", "active"):
                client.rpush(f"bull:q:{suffix}", "4")
            else:
                client.zadd(f"bull:q:{suffix}", {"4": 4})
            for _ in range(2):
                reading = await read()
                assert reading.counts == (at_rest if state is None else at_rest | {state: 1})
                assert reading.schedulers == (1 if state is None else 0)
            client.delete(f"bull:q:{suffix}")

        assert (await read()).counts == at_rest
        client.zadd("bull:q:failed", {"5": 5})
        assert (await read()).counts == at_rest | {State.FAILED: 3}
        client.set(f"bull:q:{suffix}", "not what BullMQ writes")
        reading = await read()
        assert {what for what, _ in reading.unreadable} >= {state or "schedulers"}
        assert state not in reading.counts
        client.delete(f"bull:q:{suffix}")
        assert (await read()).unreadable == ()
        client.hset("bull:q:meta", "paused", 1)
        reading = await read()
        assert reading.paused
        assert reading.counts == at_rest | {State.FAILED: 3}
        client.delete("bull:q:meta", "bull:q:failed", "bull:q:completed")
        assert await poller.poll([queue], configured=frozenset()) == ()
    await redis.close()


async def test_a_job_that_starves_between_priorities_is_reported_until_it_is_taken(
    server: Server,
) -> None:
    queue = keys.Queue.named("bull", "q")
    redis = RedisReader(RedisSettings(port=server.port), connections=2)
    waiting = WaitingJobs()
    pollers = [Poller(redis, max_schedulers=0, waiting=waiting) for _ in range(2)]
    now = int(time.time())

    async def oldest() -> set[float | None]:
        """How many seconds ago, as each of the pollers reports it."""
        readings = [await poller.poll([queue], configured=frozenset()) for poller in pollers]
        return {each.oldest_waiting and now - each.oldest_waiting for (each,) in readings}

    with server.client() as client:
        client.hset("bull:q:meta", "version", "bullmq:6.7.0")
        for priority, age in ((1, 10), (4, 3000), (5, 9000), (10, 20)):
            add_job(client, "q", f"p{priority}", timestamp=1000 * (now - age))
            client.zadd("bull:q:prioritized", {f"p{priority}": priority * 2**32 + 1})
        for _ in range(3):
            assert await oldest() == {9000}
        # While it is there no other priority is read.
        client.config_resetstat()
        assert await oldest() == {9000}
        stats = client.info("commandstats")
        assert (stats["cmdstat_zscore"]["calls"], stats["cmdstat_hmget"]["calls"]) == (2, 2)
        assert not stats.keys() & {"cmdstat_zrangebyscore", "cmdstat_zrevrange"}
        # It was taken and given back: the lowest priority is read at once, then all of them.
        client.hset("bull:q:p5", "processedOn", 1000 * (now - 5))
        assert await oldest() == {20, 3000}
        assert await oldest() == {3000}
        client.hdel("bull:q:p5", "processedOn")
        client.zrem("bull:q:prioritized", "p4")
        assert await oldest() == {20, 9000}
        # In each poll it is seen to be there still; then each priority is looked at anew.
        client.zadd("bull:q:prioritized", {"p4": 4 * 2**32 + 1})
        client.zrem("bull:q:prioritized", "p5")
        assert 9000 not in await oldest()
        for _ in range(3):
            assert await oldest() == {3000}
        client.zrem("bull:q:prioritized", "p1", "p4", "p10")
        assert await oldest() == {None}
    await redis.close()


async def test_polls_that_overlap_keep_their_answers_apart(server: Server) -> None:
    """Requests for the list of queues share what is remembered of them, and may come at once."""
    names = [keys.Queue.named("bull", f"q{number}") for number in range(4)]
    redis = RedisReader(RedisSettings(port=server.port), connections=4)
    poller = Poller(redis, max_schedulers=0)

    async def poll() -> None:
        for _ in range(50):
            first, *others = await poller.poll(names, configured=frozenset())
            assert first.counts[State.COMPLETED] == 100
            assert first.counts[State.ACTIVE] in (0, 1)
            for number, reading in enumerate(others, 1):
                assert reading.counts == {each: 0 for each in State} | {
                    State.COMPLETED: 100 + number,
                    State.FAILED: number,
                    State.ACTIVE: number % 2,
                }
            await asyncio.sleep(0)

    ended = False

    async def turn() -> None:
        """One queue comes to rest and begins to work, over and over."""
        async with AsyncRedis(port=server.port) as client:
            while not ended:
                await client.rpush("bull:q0:active", "1")
                await client.delete("bull:q0:active")

    with server.client() as client:
        for number in range(4):
            client.hset(f"bull:q{number}:meta", "version", "bullmq:5.56.3")
            client.zadd(f"bull:q{number}:completed", {str(at): at for at in range(100 + number)})
            if number:
                client.zadd(f"bull:q{number}:failed", {str(at): at for at in range(number)})
            if number % 2:
                client.rpush(f"bull:q{number}:active", "1")
    turning = asyncio.create_task(turn())
    try:
        await asyncio.gather(*(poll() for _ in range(4)))
    finally:
        ended = True  # redis-py may lose that a task was cancelled
        await turning
        await redis.close()


def test_times_that_are_no_times_are_absent(server: Server, start_exporter: StartExporter) -> None:
    with server.client() as client:
        client.hset("bull:q:meta", "version", "bullmq:5.56.3")
        client.zadd("bull:q:repeat", {"never": float("inf"), "nightly": 1_800_000_000_000})
        client.zadd("bull:q:delayed", {"j": float("-inf")})
        client.lpush("bull:q:active", "no hash of this id")
        client.lpush("bull:q:wait", "nor of this")
        client.set("oa:worker:q:alive", "1e308")
        client.zadd("bull:q:repeat", {b"\xff": 1_700_000_000_000, r"\xff": 1_700_000_000_000})
    exporter = start_exporter(server.url)
    times = {
        name: exporter.metrics.samples(f"bullmq_{name}_timestamp_seconds")
        for name in (
            "queue_oldest_waiting",
            "queue_oldest_active",
            "queue_next_delayed",
            "scheduler_next_run",
            "worker_heartbeat",
        )
    }
    assert times.pop("scheduler_next_run") == {
        ("q", "nightly"): 1_800_000_000,
        ("q", r"\xff"): 1_700_000_000,
    }
    page = exporter.metrics.get("/metrics").text.splitlines()
    assert len(page) == len(set(page)), "no series is there twice"
    assert set(map(len, times.values())) == {0}
    assert exporter.metrics.value("bullmq_exporter_unreadable_values") == 4
    assert count(exporter, "q", "waiting") == count(exporter, "q", "active") == 1


@pytest.mark.parametrize("version", ["bullmq5", "bullmq6"])
def test_the_same_schedule_registered_twice_is_reported_and_one_for_each_tenant_is_not(
    server: Server, start_exporter: StartExporter, start_work: StartWork, version: str
) -> None:
    work = start_work(version, server.port)
    exporter = start_exporter(server.url)

    def duplicates() -> float | None:
        return exporter.metrics.value("bullmq_queue_duplicate_schedulers", queue="q")

    work.call("q", "upsertJobScheduler", "alone", {"every": 3_600_000}, {"name": "alone"})
    eventually(lambda: duplicates() == 0)
    for tenant in ("a", "b", "large"):
        template = {"name": "sync", "data": {"tenant": tenant * (4000 if tenant == "large" else 1)}}
        work.call("q", "upsertJobScheduler", f"sync-{tenant}", {"every": 3_600_000}, template)
    work.call("q", "upsertJobScheduler", "nightly", {"pattern": "0 3 * * *"}, {"name": "clean"})
    eventually(lambda: exporter.metrics.value("bullmq_queue_schedulers", queue="q") == 5)
    eventually(lambda: duplicates() == 0)
    # The id was changed in a new release, and nobody removed the old one.
    work.call("q", "upsertJobScheduler", "clean-2", {"pattern": "0 4 * * *"}, {"name": "clean"})
    eventually(lambda: duplicates() == 1)
    if version == "bullmq5":  # 6 has no repeatable jobs, but their entries may be there still
        for pattern in ("* * * * *", "*/5 * * * *"):
            options = {"jobId": "mail", "repeat": {"pattern": pattern}}
            work.call("q", "add", "mail", {}, options)
        eventually(lambda: duplicates() == 2)
        work.call("q", "add", "mail", {"of": "one tenant"}, {"repeat": {"every": 60_000}})
        eventually(lambda: exporter.metrics.value("bullmq_queue_schedulers", queue="q") == 9)
    before = duplicates() or 0
    with server.client() as client:
        for pattern in (b"0 1 * * *", b"0 2 * * *"):  # as before BullMQ 5.0
            client.zadd("bull:q:repeat", {b"old:old:::" + pattern: time.time() * 1000 + 60_000})
    eventually(lambda: duplicates() == before + 1)


@pytest.mark.parametrize("version", ["bullmq5", "bullmq6"])
def test_a_schedule_that_has_ended_is_not_overdue(
    server: Server, start_exporter: StartExporter, start_work: StartWork, version: str
) -> None:
    work = start_work(version, server.port)
    work.work("q")
    for name, repeat in (
        ("until", {"every": 300, "endDate": int(time.time() * 1000) + 3000}),
        ("limited", {"every": 300, "limit": 2}),
        ("goes-on", {"every": 3_600_000}),
    ):
        work.call("q", "upsertJobScheduler", name, repeat, {"name": name})
    with server.client() as client:
        # Both have ended, and stay there.
        eventually(lambda: client.zscore("bull:q:repeat", "until") < time.time() * 1000 - 1500)
        assert client.zcard("bull:q:repeat") == 3
        ago = time.time() * 1000 - 120_000
        client.zadd("bull:q:repeat", {"limited": ago, "until": ago, "broken": ago})
    exporter = start_exporter(server.url)
    runs = exporter.metrics.samples("bullmq_scheduler_next_run_timestamp_seconds")
    assert set(runs) == {("q", "goes-on"), ("q", "broken")}


def test_a_job_that_no_worker_holds_any_more_is_reported(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    work = start_work("bullmq5", server.port)
    exporter = start_exporter(server.url)

    def locked() -> float | None:
        return exporter.metrics.value("bullmq_queue_oldest_active_locked", queue="q")

    work.add("q", "sleeps-1500", 1)
    assert locked() is None
    work.work("q", {"lockDuration": 2000})
    eventually(lambda: locked() == 1)
    eventually(lambda: exporter.metrics.value("bullmq_job_count", queue="q", state="completed"))
    eventually(lambda: locked() is None)
    work.add("q", "sleeps-60000", 1)
    eventually(lambda: locked() == 1)
    work.close()
    eventually(lambda: locked() == 0)


ODD_NAMES = [
    "with space",
    'with "quotes" and \\ backslash',
    "two\nlines",
    "emoji 📬",
    "per%cent?and#hash&more",
    "sla/sh",
    "{curly}",
    "[a-z]*",
    "..",
    "\x01control\x7f",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_queue_with_an_odd_name_is_counted_and_its_jobs_can_be_read(
    server: Server, start_exporter: StartExporter, name: str
) -> None:
    with server.client() as client:
        client.hset(f"bull:{name}:meta", "version", "bullmq:5.56.3")
        add_job(client, name, f"id of {name}:1", name=f"job {name}")
        client.lpush(f"bull:{name}:wait", f"id of {name}:1")
    exporter = start_exporter(server.url)
    assert count(exporter, name, "waiting") == 1
    page = jobs(exporter, name, "waiting")
    assert (page["name"], page["jobs"][0]["name"]) == (name, f"job {name}")
    assert ids(page) == [f"id of {name}:1"]
    openmetrics = exporter.metrics.get("/metrics", Accept="application/openmetrics-text").text
    assert openmetrics.endswith("# EOF\n")


def test_bytes_that_are_not_utf8_are_shown_escaped_and_break_nothing(
    server: Server, start_exporter: StartExporter
) -> None:
    with server.client() as client:
        client.hset(b"bull:caf\xe9:meta", "version", "bullmq:5.56.3")
        client.hset(
            b"bull:caf\xe9:i\xffd",
            mapping={"name": b"n\xfe", "data": b'{"a": "\xff"}', "failedReason": b"caf\xe9"},
        )
        client.lpush(b"bull:caf\xe9:active", b"i\xffd")
        # Shows just like the one above; one of the two must give way, or the scrape is refused.
        client.hset(r"bull:caf\xe9:meta", "version", "bullmq:5.56.3")
    exporter = start_exporter(server.url)
    assert len(exporter.metrics.samples("bullmq_queue_paused")) == 1
    assert exporter.lines("queue not watched: its name is displayed like another queue's")
    with server.client() as client:
        client.delete(r"bull:caf\xe9:meta")
    eventually(lambda: count(exporter, r"caf\xe9", "active") == 1)
    [job] = jobs(exporter, r"caf\xe9", "active")["jobs"]
    assert (job["id"], job["name"], job["failedReason"]) == (r"i\xffd", r"n\xfe", r"caf\xe9")
    assert job["data"] == r'{"a": "\xff"}'


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('{"a": [1, 2.5, null, "ü"]}', {"a": [1, 2.5, None, "ü"]}),
        ("not json", "not json"),
        ("NaN", "NaN"),
        ('{"a": Infinity}', '{"a": Infinity}'),
        ("", ""),
        ("[" * 100_000, "[" * 100_000),
        # What JSON.stringify makes of a text that was cut within an emoji.
        (
            '{"subject": "Re: \\ud83d", "ok": "\\ud83d\\ude00"}',
            {"subject": "Re: \ufffd", "ok": "😀"},
        ),
        ('{"\\ud800": NaN}', '{"\\ud800": NaN}'),
        ("[" * 300 + "]" * 300, "[" * 300 + "]" * 300),
        ("12345678901234567890123", 1.2345678901234568e22),
        ("null", None),
        ("[1]", [1]),
    ],
)
def test_data_is_given_as_json_and_what_is_not_json_as_the_string_it_is(
    server: Server, start_exporter: StartExporter, data: str, expected: object
) -> None:
    with server.client() as client:
        client.hset("bull:q:meta", "version", "bullmq:5.56.3")
        add_job(client, "q", "j", data=data, returnvalue=data, processedOn="x", timestamp="")
        client.zadd("bull:q:completed", {"j": 1})
    exporter = start_exporter(server.url)
    [job] = jobs(exporter, "q", "completed")["jobs"]
    assert job["data"] == job["returnValue"] == expected
    assert job["ingestionSourceId"] is None
    assert (job["processedOn"], job["timestamp"]) == (None, None)


def test_what_is_too_large_is_left_out_of_a_page_and_said_to_be(
    server: Server, start_exporter: StartExporter
) -> None:
    with server.client() as client:
        client.hset("bull:q:meta", "version", "bullmq:5.56.3")
        large = json.dumps({"ingestionSourceId": "s", "ids": "x" * 300_000})
        for number in range(200):
            add_job(client, "q", f"j{number:03}", data=large, failedReason="no", stacktrace='["t"]')
            client.zadd("bull:q:failed", {f"j{number:03}": number})
        add_job(client, "q", "huge", data=json.dumps("y" * 2_000_000), returnvalue="1")
        client.zadd("bull:q:completed", {"huge": 1})
    exporter = start_exporter(server.url)
    page = exporter.api.get("/v1/jobs/queues/q?limit=1000")
    assert len(page.body) < 20_000_000
    failed = page.json["jobs"]
    whole = [job for job in failed if isinstance(job["data"], dict)]
    assert len(whole) == 16 * 1024 * 1024 // (len(large) + len("no") + len('["t"]'))
    for job in failed[len(whole) + 1 :]:
        assert job["data"] == f"[left out: {len(large)} bytes]"
    assert {job["failedReason"] for job in failed} == {"no"}
    [huge] = jobs(exporter, "q", "completed")["jobs"]
    assert (huge["data"], huge["returnValue"]) == ("[left out: 2000002 bytes]", 1)


async def test_others_have_their_turn_between_large_jobs_of_a_page(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.client() as client:
        for number in range(5):
            add_job(client, "q", f"{number}", data=json.dumps("x" * 1000))
            client.rpush("bull:q:wait", f"{number}")
    turns, at_job = 0, []

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def parsed(*arguments: Any) -> Job:
        at_job.append(turns)
        return job_of(*arguments)

    job_of = jobs_module.job_of
    monkeypatch.setattr(jobs_module, "job_of", parsed)
    monkeypatch.setattr(jobs_module, "PARSE_BATCH_BYTES", 1000)
    redis = RedisReader(RedisSettings(host="127.0.0.1", port=server.port), connections=1)
    other = asyncio.create_task(take_turns())
    try:
        queue = keys.Queue.named("bull", "q")
        page = await read_page(
            redis, queue, State.WAITING, start=0, limit=9, newest_first=False, limits=ReadLimits()
        )
    finally:
        other.cancel()
        await redis.close()
    assert len(page.jobs) == len(set(at_job)) == 5


def test_a_job_that_vanished_is_left_out_of_its_page(
    server: Server, start_exporter: StartExporter
) -> None:
    with server.client() as client:
        client.hset("bull:q:meta", "version", "bullmq:5.56.3")
        for number in range(4):
            client.zadd("bull:q:failed", {f"j{number}": number})
        add_job(client, "q", "j1")
        add_job(client, "q", "j3")
        client.set("bull:q:j2", "not a hash")
    page = jobs(start_exporter(server.url), "q", "failed")
    assert ids(page) == ["j1", "j3"]
    assert page["pagination"]["totalJobs"] == 4


def test_prefixes_with_colons_hash_tags_and_wildcards_find_their_own_queues_alone(
    server: Server, start_exporter: StartExporter
) -> None:
    with server.client() as client:
        for prefix in ("bull", "bull:eu", "{bull}", "b*ll"):
            client.hset(f"{prefix}:mail:meta", "version", "bullmq:5.56.3")
            client.lpush(f"{prefix}:mail:wait", *(["j"] * len(prefix)))
        client.hset("bull:mail:some:meta", "name", "a job whose id ends in :meta")
    for prefix in ("bull", "bull:eu", "{bull}"):
        exporter = start_exporter(server.url, "--prefix", prefix)
        reported = exporter.metrics.samples("bullmq_job_count", state="waiting")
        assert reported == {("mail",): len(prefix)}
        exporter.terminate()
    # An asterisk that stands for itself; without the brackets it is a pattern.
    for prefix, expected in (
        ("b[*]ll", {("mail",): 4}),
        ("b*ll", {("bull", "mail"): 4, ("b*ll", "mail"): 4}),
    ):
        exporter = start_exporter(server.url, "--prefix", prefix)
        assert exporter.metrics.samples("bullmq_job_count", state="waiting") == expected
        exporter.terminate()

    exporter = start_exporter(server.url, "--prefix", "bull:eu,{bull}")
    reported = exporter.metrics.samples("bullmq_job_count", state="waiting")
    assert reported == {("bull:eu", "mail"): 7, ("{bull}", "mail"): 6}
    assert exporter.metrics.samples("bullmq_queue_info").keys() == {
        ("bull:eu", "mail", "bullmq:5.56.3"),
        ("{bull}", "mail", "bullmq:5.56.3"),
    }
    listed = exporter.api.get("/v1/jobs/queues").json["queues"]
    assert [(q["prefix"], q["counts"]["waiting"]) for q in listed] == [
        ("bull:eu", 7),
        ("{bull}", 6),
    ]
    assert jobs(exporter, "mail", "waiting")["prefix"] == "bull:eu"
    page = jobs(exporter, "mail", "waiting", prefix=quote("{bull}"))
    assert (page["prefix"], page["counts"]["waiting"]) == ("{bull}", 6)
    assert exporter.api.get("/v1/jobs/queues/mail?prefix=other").status == 400


def test_a_configured_queue_that_redis_does_not_know_counts_0_and_others_are_not_watched(
    server: Server, start_exporter: StartExporter
) -> None:
    with server.client() as client:
        client.hset("bull:other:meta", "version", "bullmq:5.56.3")
        client.hset("bull:known:meta", "version", "bullmq:5.56.3")
    exporter = start_exporter(server.url, "--queues", "known,not yet")
    assert set(exporter.metrics.samples("bullmq_job_count", state="failed").items()) == {
        (("known",), 0),
        (("not yet",), 0),
    }
    assert jobs(exporter, "not yet", "failed")["jobs"] == []
    assert exporter.api.get("/v1/jobs/queues/other").status == 404
    assert [q["name"] for q in exporter.api.get("/v1/jobs/queues").json["queues"]] == [
        "known",
        "not yet",
    ]


def test_queues_appear_and_their_series_vanish_with_them(
    server: Server, start_exporter: StartExporter
) -> None:
    exporter = start_exporter(server.url)
    assert exporter.metrics.samples("bullmq_job_count") == {}
    with server.client() as client:
        client.hset("bull:new:meta", "version", "bullmq:5.56.3")
        # The API sees it before the next discovery.
        assert exporter.api.get("/v1/jobs/queues/new").status == 200
        eventually(lambda: count(exporter, "new", "failed") == 0)
        client.delete("bull:new:meta")
    eventually(lambda: exporter.metrics.samples("bullmq_job_count") == {})
    assert exporter.api.get("/v1/jobs/queues/new").status == 404
    assert [line["queues"] for line in exporter.lines("found queues")] == ["new"]
    eventually(lambda: [line["queues"] for line in exporter.lines("queues are gone")] == ["new"])


def test_queues_and_schedulers_are_bounded(server: Server, start_exporter: StartExporter) -> None:
    with server.client() as client:
        for number in range(30):
            client.hset(f"bull:q{number:02}:meta", "version", "bullmq:5.56.3")
        client.zadd("bull:q00:repeat", {f"s{n:03}": 1_800_000_000_000 + n for n in range(150)})
    exporter = start_exporter(server.url, EXPORTER_MAX_QUEUES="20")
    assert len(exporter.metrics.samples("bullmq_queue_paused")) == 20
    assert [
        line["count"] for line in exporter.lines("queues beyond max_queues are not watched")
    ] == [10]
    runs = exporter.metrics.samples("bullmq_scheduler_next_run_timestamp_seconds", queue="q00")
    assert len(runs) == 100
    assert runs["s000",] == 1_800_000_000
    assert exporter.metrics.value("bullmq_queue_schedulers", queue="q00") == 150

    # One whose name comes first puts none out; it takes the place of one that goes.
    watched = exporter.metrics.samples("bullmq_queue_paused").keys()
    with server.client() as client:
        client.hset("bull:a-new-one:meta", "version", "bullmq:5.56.3")
        left_out = "bullmq_exporter_unwatched_queues"
        eventually(lambda: exporter.metrics.value(left_out, reason="max_queues") == 11)
        assert exporter.metrics.samples("bullmq_queue_paused").keys() == watched
        client.delete("bull:q07:meta")
        with_it = (watched - {("q07",)}) | {("a-new-one",)}
        eventually(lambda: exporter.metrics.samples("bullmq_queue_paused").keys() == with_it)
    assert len(exporter.lines("queues beyond max_queues are not watched")) == 1
    assert [line["queues"] for line in exporter.lines("queues are gone")] == ["q07"]
