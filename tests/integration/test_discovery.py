"""Which queues are found: by which of their keys, of which prefixes, and at which cost."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from exporter.collect.watcher import PATIENCE_SECONDS, Watcher, watched_queues
from exporter.concurrency.request_priority import RequestPriority
from exporter.queues.queue import Queue
from exporter.queues.snapshot import Outcome
from exporter.queues.watched_queues import WatchedQueues
from exporter.settings import RedisSettings, Settings, Watched
from exporter.stores import open_store
from exporter.stores.base import Findings
from exporter.stores.bullmq.discovery import Search
from exporter.stores.redis.client import RedisReader
from tests.support.bullmq import StartWork
from tests.support.exporters import Exporter, StartExporter
from tests.support.servers import Server
from tests.support.waiting import eventually

VERSIONS = pytest.mark.parametrize("version", ["bullmq5", "bullmq6"])


def search(server: Server, *, everywhere: bool = True, **settings: Any) -> Findings:
    async def run() -> Findings:
        reader = RedisReader(RedisSettings(host="127.0.0.1", port=server.port), connections=1)
        try:
            searching = Search(
                reader, Watched(**settings), limit=1000, request_priority=RequestPriority()
            )
            return await searching.run(pace=0, everywhere=everywhere)
        finally:
            await reader.close()

    return asyncio.run(run())


def found(server: Server, **settings: Any) -> list[tuple[str, str]]:
    return [(queue.prefix, queue.name) for queue in search(server, **settings).queues]


def make_queues(server: Server, *bases: str) -> None:
    with server.client() as client:
        for base in bases:
            client.hset(f"{base}:meta", "version", "bullmq:5.56.3")
            client.xadd(f"{base}:events", {"event": "added"})


def waiting(exporter: Exporter, queue: str) -> float | None:
    return exporter.metrics.value("bullmq_job_count", queue=queue, state="waiting")


@VERSIONS
def test_a_queue_without_meta_is_watched_while_it_holds_jobs(
    server: Server, start_exporter: StartExporter, start_work: StartWork, version: str
) -> None:
    start_work(version, server.port).add("mail", "send", 3)
    exporter = start_exporter(server.url)

    def polls() -> float:
        return exporter.metrics.value("bullmq_exporter_poll_duration_seconds_count") or 0

    with server.client() as client:
        client.delete("bull:mail:meta")
        before = polls()
        eventually(lambda: polls() > before + 3)
        assert waiting(exporter, "mail") == 3
        # Who begins now finds it as well.
        other = start_exporter(server.url)
        for each in (exporter, other):
            assert waiting(each, "mail") == 3
            [listed] = each.api.get("/v1/jobs/queues").json["queues"]
            assert (listed["name"], listed["counts"]["waiting"]) == ("mail", 3)
            page = each.api.get("/v1/jobs/queues/mail?status=waiting").json
            assert len(page["jobs"]) == 3
        client.delete("bull:mail:wait")
        for each in (exporter, other):
            eventually(lambda: waiting(each, "mail") is None)  # noqa: B023
            assert each.api.get("/v1/jobs/queues/mail").status == 404


def test_a_queue_that_holds_nothing_but_schedulers_has_a_page(
    server: Server, start_exporter: StartExporter
) -> None:
    with server.client() as client:
        client.zadd("bull:cron:repeat", {"nightly": 1})
        client.xadd("bull:cron:events", {"event": "added"})
        exporter = start_exporter(server.url)
        [listed] = exporter.api.get("/v1/jobs/queues").json["queues"]
        assert listed["name"] == "cron"
        assert exporter.api.get("/v1/jobs/queues/cron").json["jobs"] == []
        assert len(exporter.api.get("/v1/jobs/queues/cron/schedulers").json["schedulers"]) == 1
        client.delete("bull:cron:repeat")
        assert exporter.api.get("/v1/jobs/queues/cron").status == 404


@pytest.mark.parametrize(
    "key",
    [
        *("wait", "active", "paused", "completed", "failed", "delayed"),
        *("prioritized", "waiting-children", "repeat"),
    ],
)
@pytest.mark.parametrize("events", [True, False], ids=["events", "no events"])
def test_each_key_that_holds_jobs_makes_a_queue(server: Server, key: str, events: bool) -> None:
    with server.client() as client:
        if key in ("wait", "active", "paused"):
            client.lpush(f"bull:q:{key}", "1")
        else:
            client.zadd(f"bull:q:{key}", {"1": 1})
        client.hset("bull:q:1", mapping={"name": "send", "opts": json.dumps({"attempts": 0})})
        if events:
            client.xadd("bull:q:events", {"event": "added"})
    assert found(server) == [("bull", "q")]
    if events:
        assert found(server, everywhere=False) == [("bull", "q")]


def test_what_only_looks_like_a_queue_is_none(server: Server) -> None:
    with server.client() as client:
        client.xadd("bull:emptied:events", {"event": "drained"})
        client.set("bull:no-list:wait", "1")
        client.hset("bull:q:failed", "name", "a job whose id is `failed`")
        client.hset("bull:q:7:failed", "bull:q:8", "a child's reason")
        client.hset("bull:q:metrics:completed", "count", 1)
        client.hset("bull:q:some:meta", "name", "a job whose id is `some:meta`")
        client.hset("meta", "version", "bullmq:5.56.3")
        client.hset("bull::meta", "version", "bullmq:5.56.3")
        client.hset("bull:meta", "version", "bullmq:5.56.3")
    for everywhere in (True, False):
        assert found(server, everywhere=everywhere) == []
    assert search(server).other_prefixes == {}


def test_queues_of_bull_3_and_4_are_found_or_counted_where_they_are_not_wanted(
    server: Server,
) -> None:
    options = json.dumps({"attempts": 3, "delay": 0, "timestamp": 1_700_000_000_000})
    with server.client() as client:
        client.set("bull:at-rest:id", "812")  # finished jobs are removed at once
        client.set("bull:paused-at-rest:id", "1")
        client.hset("bull:paused-at-rest:meta", "paused", "1")
        client.set("bull:paused-at-rest:meta-paused", "1")
        client.lpush("bull:jobs:wait", "1")  # somebody deleted its counter
        client.hset("bull:jobs:1", mapping={"name": "__default__", "opts": options})
        client.zadd("bull:paused:completed", {"1": 1})
        client.set("bull:paused:meta-paused", "1")
        client.set("bull:mail:send:id", "7")
        client.lpush("bull:mail:send:wait", "1")
        client.hset("bull:mail:send:1", mapping={"name": "__default__", "opts": options})
        # None of these is one.
        client.hset("bull:at-rest:user:id", "name", "send")
        client.set("bull:text:id", "abc")
        client.rpush("bull:list:id", "1")
        client.set("app:user:id", "42")
        # BullMQ numbers its jobs, too.
        client.hset("bull:mq:meta", mapping={"opts.maxLenEvents": "10000", "paused": "1"})
        client.set("bull:mq:id", "3")
        client.set("bull:without-meta:id", "3")
        client.xadd("bull:without-meta:events", {"event": "added"})
        client.lpush("bull:without-meta:wait", "1")
    bull = ["at-rest", "jobs", "mail:send", "paused", "paused-at-rest"]
    bullmq = ["mq", "without-meta"]
    for everywhere in (True, False):
        names = [name for _, name in found(server, everywhere=everywhere)]
        assert sorted(names) == sorted([*bull, *bullmq])
    assert search(server).bull == ()
    searched = search(server, bull=False)
    assert [queue.name for queue in searched.queues] == bullmq
    assert searched.bull == tuple(bull)
    # A pattern of prefixes fits what is no queue: a counter alone is not enough.
    assert ("app", "user") not in found(server, prefix="*")


def test_names_with_colons_are_those_of_the_prefix_that_fits_best(server: Server) -> None:
    with server.client() as client:
        client.hset("bull:sales:cancel:meta", "opts.maxLenEvents", "10000")
        client.hset("bull:sales:refund:meta", "version", "bullmq:4.18.3")
        client.rpush("bull:sales:lost:wait", "1")
        client.xadd("bull:sales:lost:events", {"event": "added"})
        # These name their versions, which refuse colons: they are of the prefix `bull:eu`.
        client.hset("bull:eu:mail:meta", "version", "bullmq:5.56.3")
        client.hset("bull:eu:pro:meta", "version", "bullmq-pro:7.1.0")
    sales = [("bull", f"sales:{name}") for name in ("cancel", "lost", "refund")]
    assert found(server) == sales
    assert search(server).other_prefixes == {"bull:eu": 2}
    eu = [("bull:eu", "mail"), ("bull:eu", "pro")]
    assert found(server, prefix=["bull", "bull:eu"]) == [*eu, *sales]
    assert found(server, prefix=["bull:sales"]) == [
        ("bull:sales", name) for name in ("cancel", "lost", "refund")
    ]


def test_a_queue_with_a_colon_is_shown_and_can_be_named_and_asked_for(
    server: Server, start_exporter: StartExporter
) -> None:
    with server.client() as client:
        client.hset("bull:sales:cancel:meta", "opts.maxLenEvents", "10000")
        client.lpush("bull:sales:cancel:wait", "42")
        client.hset("bull:sales:cancel:42", mapping={"name": "send", "data": "{}", "timestamp": 1})
    for flags in ((), ("--queues", "sales:cancel")):
        exporter = start_exporter(server.url, *flags)
        assert waiting(exporter, "sales:cancel") == 1
        for name in ("sales:cancel", "sales%3Acancel"):
            page = exporter.api.get(f"/v1/jobs/queues/{name}?status=waiting").json
            assert [job["id"] for job in page["jobs"]] == ["42"]
        job = exporter.api.get("/v1/jobs/keys/bull:sales:cancel:42").json
        assert (job["name"], job["id"]) == ("sales:cancel", "42")


def test_patterns_of_prefixes_and_of_queues_select(server: Server) -> None:
    make_queues(server, "{t1}:mail", "{t2}:mail", "{t2}:test-1")
    make_queues(server, "bull:mail", "bull:eu:mail", "t3:mail")
    tenants = [("{t1}", "mail"), ("{t2}", "mail"), ("{t2}", "test-1")]
    for everywhere in (True, False):
        assert found(server, prefix="{t*}", everywhere=everywhere) == tenants
        assert found(server, prefix="{t*},bull", everywhere=everywhere) == [
            ("bull", "mail"),
            *tenants,
        ]
        everything = found(server, prefix="*", everywhere=everywhere)
        assert everything == [
            ("bull:eu", "mail"), ("bull", "mail"), ("t3", "mail"), *tenants
        ]  # fmt: skip
    assert found(server, prefix="{t*}", queues="test-*") == [("{t2}", "test-1")]
    assert found(server, prefix="{t*}", queues_exclude="test-?") == tenants[:2]
    searched = search(server, prefix="{t*}", queues="*a*,test-1", queues_exclude="m[a]il")
    assert [queue.name for queue in searched.queues] == ["test-1"]
    assert (searched.excluded, searched.other_prefixes) == (2, {"bull": 1, "bull:eu": 1, "t3": 1})


def test_one_scan_finds_the_queues_of_300_prefixes(server: Server) -> None:
    make_queues(server, *(f"{{t{number}}}:mail" for number in range(300)))
    with server.client() as client:
        with client.pipeline(transaction=False) as pipe:
            for number in range(6000):
                pipe.hset(f"{{t{number % 300}}}:mail:{number}", "name", "send")
            pipe.execute()
        client.config_resetstat()
        prefixes = [f"{{t{number}}}" for number in range(300)]
        assert len(found(server, prefix=prefixes, everywhere=False)) == 300
        calls = client.info("commandstats")["cmdstat_scan"]["calls"]
    assert calls <= 2 * 6600 // 1000


def test_watched_queues_stay_and_new_ones_get_what_is_left() -> None:
    a, b, c, d = (Queue.named("bull", name) for name in "abcd")
    for alive, kept, left_out in (([c, d], (a, c, d), {b}), ([], (a, b, c), {d})):
        watched = WatchedQueues(limit=3)
        assert watched.choose([a, b, c, d], alive) == kept
        assert watched.left_out == left_out


def test_a_queue_that_was_left_out_is_not_counted_for_what_was_before(
    server: Server, start_exporter: StartExporter
) -> None:
    make_queues(server, "bull:a", "bull:b")

    def completed(job_id: str, entry_id: str) -> None:
        entry = {"event": "completed", "jobId": job_id, "returnvalue": "1", "prev": "active"}
        client.xadd("bull:b:events", entry, id=entry_id)

    with server.client() as client:
        client.delete("bull:b:events")
        minute_ago = int(1000 * time.time()) - 60_000
        for number in range(5):
            completed(f"old-{number}", f"{minute_ago + number}-0")
        exporter = start_exporter(server.url, EXPORTER_MAX_QUEUES="1")
        left_out = "bullmq_exporter_unwatched_queues"
        assert exporter.metrics.value(left_out, reason="max_queues") == 1
        client.delete("bull:a:meta", "bull:a:events")
        missed = "bullmq_exporter_events_missed_total"
        eventually(lambda: exporter.metrics.value(missed, queue="b") == 0)
        completed("new", "*")
        counter = "bullmq_job_completed_total"
        eventually(lambda: sum(exporter.metrics.samples(counter, queue="b").values()) == 1)
        assert exporter.metrics.value(missed, queue="b") == 0


def test_prefixes_of_a_pattern_are_distinguished_everywhere(
    server: Server, start_exporter: StartExporter
) -> None:
    make_queues(server, "{t1}:mail", "{t2}:mail", "{t2}:test-1", "other:mail")
    with server.client() as client:
        client.lpush("{t2}:mail:wait", "7")
        client.hset("{t2}:mail:7", mapping={"name": "send", "data": "{}"})
    exporter = start_exporter(server.url, "--prefix", "{t*}", EXPORTER_QUEUES_EXCLUDE="test-*")
    reported = exporter.metrics.samples("bullmq_job_count", state="waiting")
    assert reported == {("{t1}", "mail"): 0, ("{t2}", "mail"): 1}
    unwatched = exporter.metrics.samples("bullmq_exporter_unwatched_queues")
    assert unwatched == {
        ("max_queues",): 0,
        ("excluded",): 1,
        ("prefix",): 1,
        ("bull",): 0,
        ("long_name",): 0,
    }
    listed = exporter.api.get("/v1/jobs/queues").json["queues"]
    assert [queue["prefix"] for queue in listed] == ["{t1}", "{t2}"]
    page = exporter.api.get("/v1/jobs/queues/mail?status=waiting&prefix=%7Bt2%7D").json
    assert (page["prefix"], len(page["jobs"])) == ("{t2}", 1)
    assert exporter.api.get("/v1/jobs/keys/%7Bt2%7D:mail:7").json["prefix"] == "{t2}"
    for gone in ("/v1/jobs/queues/test-1", "/v1/jobs/queues/mail?prefix=other"):
        assert exporter.api.get(gone).status == 404
    make_queues(server, "{t3}:mail")
    paused = "bullmq_queue_paused"
    eventually(lambda: exporter.metrics.value(paused, prefix="{t3}", queue="mail") == 0)


@pytest.mark.parametrize("prefix", ["bull", "*", "[abc]*"])
def test_keys_of_other_applications_make_no_queues(server: Server, prefix: str) -> None:
    make_queues(server, "bull:real")
    with server.client() as client:
        client.rpush("cache:users:wait", "x", "y", "z")
        client.rpush("bull:users:wait", "x")
        client.set("app:session:meta", "hello")
        client.hset("bull:real:repeat:meta", mapping={"name": "x", "pattern": "* * * * *"})
    assert found(server, prefix=[prefix]) == [("bull", "real")]


async def test_an_application_that_starts_at_the_same_time_is_searched_for_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All keys are searched each hour, but the first time it may not have made all queues yet."""
    redis_settings = RedisSettings(host="127.0.0.1", port=server.port)

    async def ignore(_: Outcome) -> None:
        pass

    settings = Settings(redis=redis_settings)
    watched = watched_queues(settings)
    store = open_store(settings, watched, RequestPriority())
    watcher = Watcher(store, watched, settings, ignore)

    async def unwatched() -> int:
        await watcher._search_again()
        snapshot = (await watcher.poll()).snapshot
        assert snapshot is not None and snapshot.unwatched is not None
        return snapshot.unwatched["prefix"]

    make_queues(server, "bull:mail", "other:mail")
    assert await unwatched() == 1
    make_queues(server, "other:sync")
    assert await unwatched() == 1
    started = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: started + PATIENCE_SECONDS)
    assert await unwatched() == 2
    make_queues(server, "other:late")
    assert await unwatched() == 2
    await store.close()
