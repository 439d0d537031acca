"""Jobs that are listed without their hash: evicted by Redis, or deleted by somebody."""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import Any

import pytest

from exporter.queues.queue import Queue, State
from exporter.settings import RedisSettings, Settings
from exporter.stores.bullmq.collectors.missing_jobs import MAX_QUEUES_PER_ROUND, MissingJobs
from exporter.stores.bullmq.keys import meta_key
from exporter.stores.bullmq.poll import Poller
from exporter.stores.redis.client import RedisReader
from tests.support.bullmq import StartWork
from tests.support.exporters import Exporter, StartExporter
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.waiting import eventually

MESSAGE = "jobs have no data: evicted or deleted"


def missing(exporter: Exporter, queue: str) -> dict[str, float]:
    samples = exporter.metrics.samples("bullmq_queue_missing_jobs")
    return {state: number for (of, state), number in samples.items() if of == queue}


def page(exporter: Exporter, query: str, queue: str = "mail") -> dict[str, Any]:
    answer = exporter.api.get(f"/v1/jobs/queues/{queue}?{query}")
    assert answer.status == 200, answer.body
    return dict(answer.json)


@pytest.mark.parametrize("version", ["bullmq5", "bullmq6"])
def test_jobs_without_data_are_counted_and_the_page_says_how_many(
    server: Server, start_exporter: StartExporter, start_work: StartWork, version: str
) -> None:
    work = start_work(version, server.port)
    work.add("mail", "send", 10)
    work.add("mail", "later", 3, {"delay": 3_600_000})
    work.add("mail", "urgent", 3, {"priority": 7})
    work.add("whole", "send", 30)
    with server.client() as client:
        ids = client.lrange("bull:mail:wait", 0, -1)
        client.delete(*(b"bull:mail:" + each for each in ids[::2]))
        client.delete(b"bull:mail:" + client.zrange("bull:mail:delayed", 0, 0)[0])
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            exporter = start_exporter(server.url)
            eventually(
                lambda: missing(exporter, "mail") == {"waiting": 5, "delayed": 1, "prioritized": 0}
            )
            assert missing(exporter, "whole") == {"waiting": 0}
            waiting = page(exporter, "status=waiting")
        finally:
            client.config_set("maxmemory-policy", "noeviction")
        assert (waiting["counts"]["waiting"], len(waiting["jobs"])) == (10, 5)
        assert (waiting["missing"], waiting["maxmemoryPolicy"]) == (5, "allkeys-lru")
        part = page(exporter, "status=waiting&limit=3&page=2")
        assert len(part["jobs"]) + part["missing"] == 3
        whole = page(exporter, "status=waiting", "whole")
        assert whole["missing"] == 0
        assert "maxmemoryPolicy" not in whole
        assert "missing" not in page(exporter, "status=waiting&name=send")
        work.call("mail", "pause")
        eventually(lambda: missing(exporter, "mail").get("paused") == 5)
        assert page(exporter, "status=paused")["missing"] == 5
        client.delete("bull:mail:wait", "bull:mail:paused", "bull:mail:delayed")
        eventually(lambda: missing(exporter, "mail") == {"prioritized": 0})
    [line] = eventually(lambda: exporter.lines(MESSAGE))
    assert line["queue"] == "mail"
    assert sorted(line["missing"].split(", ")) == ["1 delayed", "5 waiting"]
    assert line["maxmemory_policy"] == "allkeys-lru"


def test_a_user_who_may_not_read_info_sees_all_but_the_policy(
    server: Server, start_exporter: StartExporter
) -> None:
    with server.client() as client:
        client.hset("bull:mail:meta", "version", "bullmq:5.56.3")
        client.rpush("bull:mail:wait", "1", "0:0")  # the marker of before BullMQ 5.0 is no job
        client.acl_setuser(
            "reads-bull",
            enabled=True,
            reset=True,
            passwords=["+secret"],
            keys=["bull:*"],
            categories=["+@read"],
            commands=["+ping", "+evalsha_ro", "+eval_ro"],
        )
        client.execute_command("ACL", "LOG", "RESET")
        exporter = start_exporter(server.url, REDIS_USER="reads-bull", REDIS_PASSWORD="secret")
        eventually(lambda: missing(exporter, "mail") == {"waiting": 1})
        for _ in range(3):
            answer = page(exporter, "status=waiting")
            assert (answer["missing"], answer["maxmemoryPolicy"]) == (1, None)
        refused = client.execute_command("ACL", "LOG")
    objects = [dict(zip(entry[::2], entry[1::2], strict=True)) for entry in refused]
    # Once by each of the two who ask; CLIENT is for counting workers.
    asked = sum(each[b"count"] for each in objects if each[b"object"].startswith(b"info"))
    assert 1 <= asked <= 2
    [line] = eventually(lambda: exporter.lines(MESSAGE))
    assert "maxmemory_policy" not in line


async def test_jobs_that_come_and_go_are_not_missing(server: Server) -> None:
    """Added and removed as BullMQ does it: a job's hash and its id in one script."""
    add = """
        if redis.call('EXISTS', KEYS[2]) == 1 then return end
        redis.call('HSET', KEYS[2], 'name', 'x')
        redis.call('LPUSH', KEYS[1], ARGV[1])
    """
    remove = """
        local id = redis.call('RPOP', KEYS[1])
        redis.call('DEL', ARGV[1] .. id)
    """
    queue = Queue.named("bull", "busy")
    reader = RedisReader(RedisSettings(port=server.port), connections=2)
    poller, missing_jobs = Poller(reader, max_schedulers=0), MissingJobs(reader, Settings())
    ended = threading.Event()

    def work() -> None:
        with server.client() as own:
            for number in itertools.count(20):
                own.eval(add, 2, "bull:busy:wait", f"bull:busy:{number}", number)
                own.eval(remove, 1, "bull:busy:wait", "bull:busy:")
                # An id comes back.
                own.eval(add, 2, "bull:busy:wait", f"bull:busy:{number % 7}", number % 7)
                if own.llen("bull:busy:wait") > 20:
                    own.eval(remove, 1, "bull:busy:wait", "bull:busy:")
                if ended.is_set():
                    return

    with server.client() as client:
        client.hset("bull:busy:meta", "version", "bullmq:5.56.3")
        for number in range(20):
            client.eval(add, 2, "bull:busy:wait", f"bull:busy:{number}", number)
        working = asyncio.create_task(asyncio.to_thread(work))
        try:
            for _ in range(200):
                readings = await poller.poll([queue], configured=frozenset())
                assert (await missing_jobs.collect(readings, seconds=60))[queue] == {
                    State.WAITING: 0
                }
        finally:
            ended.set()
            await working
    await reader.close()


async def test_many_queues_are_looked_at_in_turn(server: Server) -> None:
    queues = [Queue.named("bull", f"q{number}") for number in range(MAX_QUEUES_PER_ROUND + 20)]
    reader = RedisReader(RedisSettings(port=server.port), connections=2)
    poller, missing_jobs = Poller(reader, max_schedulers=0), MissingJobs(reader, Settings())
    with server.client() as client, client.pipeline() as pipeline:
        for queue in queues:
            pipeline.hset(meta_key(queue), "version", "bullmq:5.56.3")
            pipeline.rpush(queue.base + b"wait", "1")
        pipeline.execute()
    readings = await poller.poll(queues, configured=frozenset())
    first = await missing_jobs.collect(readings, seconds=60)
    assert len(first) == MAX_QUEUES_PER_ROUND
    second = await missing_jobs.collect(readings, seconds=60)
    assert second == {queue: {State.WAITING: 1} for queue in queues}
    # Those that are gone are forgotten.
    assert (await missing_jobs.collect(readings[:1], seconds=60)).keys() == {queues[0]}
    await reader.close()


def test_a_redis_far_away_takes_the_time_of_slow_reads_and_fails_no_poll(
    server: Server, start_exporter: StartExporter
) -> None:
    """Each queue is looked at in several round trips: many took longer than a poll may."""
    with server.client() as client:
        pipeline = client.pipeline(transaction=False)
        for number in range(120):
            pipeline.hset(f"bull:q{number}:meta", "version", "bullmq:5.56.3")
            pipeline.rpush(f"bull:q{number}:wait", "1")
        pipeline.execute()
    with Proxy(server.port) as proxy:
        proxy.delay = 0.2
        exporter = start_exporter(
            f"redis://127.0.0.1:{proxy.port}",
            EXPORTER_REDIS_TIMEOUT="4",
            EXPORTER_DISCOVERY_INTERVAL="1",
            EXPORTER_EVENTS_ENABLED="false",
        )
        # What is not reached in one round is in the next.
        eventually(lambda: len(exporter.metrics.samples("bullmq_queue_missing_jobs")) == 120)
        assert exporter.metrics.value("bullmq_exporter_poll_errors_total") == 0
