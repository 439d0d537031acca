"""What schedulers repeat, and when they ran: metrics and API."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from exporter.queues.queue import Queue
from exporter.queues.snapshot import QueueReading, Scheduler
from exporter.settings import RedisSettings, Settings
from exporter.stores.bullmq import schedulers as module
from exporter.stores.bullmq.collectors.schedulers import Schedulers
from exporter.stores.redis.client import RedisReader
from tests.support.bullmq import StartWork
from tests.support.exporters import Exporter, StartExporter
from tests.support.servers import Server
from tests.support.waiting import eventually

NEXT_RUN = "bullmq_scheduler_next_run_timestamp_seconds"
LAST_RUN = "bullmq_scheduler_last_run_timestamp_seconds"
INTERVAL = "bullmq_scheduler_interval_seconds"
# So long that no further run begins in a test.
YEAR = 365 * 86_400_000


def schedulers(exporter: Exporter, queue: str = "q", query: str = "") -> dict[str, dict[str, Any]]:
    answer = exporter.api.get(f"/v1/jobs/queues/{queue}/schedulers{query}")
    assert answer.status == 200, answer.body
    return {each["key"]: each for each in answer.json["schedulers"]}


def info(exporter: Exporter) -> dict[str, tuple[str, str]]:
    """Pattern and time zone of each scheduler."""
    samples = exporter.metrics.samples("bullmq_scheduler_info")
    assert set(samples.values()) <= {1}
    return {scheduler: (pattern, tz) for pattern, _, scheduler, tz in samples}


def last_runs(exporter: Exporter) -> dict[str, float]:
    samples = exporter.metrics.samples(LAST_RUN)
    return {scheduler: round(at * 1000) for (_, scheduler), at in samples.items()}


@pytest.mark.parametrize("version", ["bullmq5", "bullmq6"])
def test_a_scheduler_reports_what_it_repeats_and_when_it_last_ran(
    server: Server, start_exporter: StartExporter, start_work: StartWork, version: str
) -> None:
    work = start_work(version, server.port)
    template = {"name": "sync", "data": {"password": "hunter2"}}
    work.call("q", "upsertJobScheduler", "often", {"every": YEAR}, template)
    berlin = {"pattern": "0 3 1 1 *", "tz": "Europe/Berlin"}
    work.call("q", "upsertJobScheduler", "yearly", berlin, {"name": "clean"})
    if version == "bullmq5":  # 6 has no repeatable jobs
        repeat = {"every": 2 * YEAR, "immediately": True, "key": "old"}
        work.call("q", "add", "old", {}, {"repeat": repeat})
    ran = {"often", "old"} if version == "bullmq5" else {"often"}
    exporter = start_exporter(server.url)
    assert last_runs(exporter) == {}
    # 5.56.3 plans the first run of an interval for its begin, months ago: the job is new.
    assert not any(each["overdue"] for each in schedulers(exporter).values())
    work.work("q")
    with server.client() as client:
        eventually(lambda: client.zcard("bull:q:completed") == len(ran))
        jobs = [
            client.hgetall(b"bull:q:" + each) for each in client.zrange("bull:q:completed", 0, -1)
        ]
        scores = {
            key.decode(): at for key, at in client.zrange("bull:q:repeat", 0, -1, withscores=True)
        }
    took = {job[b"rjk"].decode(): job for job in jobs}
    assert took.keys() == ran

    found = schedulers(exporter)
    assert {key: each["nextRun"] for key, each in found.items()} == scores
    for key in ran:
        job = took[key]
        assert int(job[b"processedOn"]) <= found[key]["lastRun"] <= int(job[b"finishedOn"])
    often, yearly = found["often"], found["yearly"]
    assert (often["name"], often["every"], often["pattern"]) == ("sync", YEAR, None)
    assert (yearly["pattern"], yearly["tz"]) == ("0 3 1 1 *", "Europe/Berlin")
    assert (yearly["lastRun"], yearly["ended"], yearly["name"]) == (None, False, "clean")
    assert not any(each["overdue"] for each in found.values())
    assert "hunter2" not in str(found)
    eventually(lambda: last_runs(exporter) == {key: found[key]["lastRun"] for key in ran})
    expected = (
        {"often": 31_536_000, "old": 63_072_000} if version == "bullmq5" else {"often": 31_536_000}
    )
    samples = exporter.metrics.samples(INTERVAL)
    assert {key: value for (_, key), value in samples.items()} == expected
    assert info(exporter) == {
        "yearly": ("0 3 1 1 *", "Europe/Berlin"),
        **dict.fromkeys(ran, ("", "")),
    }

    # An application that starts registers its schedulers anew: that is no run. 5.56.3 does nothing
    # while the last job of an `every` is kept.
    work.call("q", "upsertJobScheduler", "often", {"every": YEAR}, template)
    known = often["lastRun"] if version == "bullmq5" else None
    assert schedulers(exporter)["often"]["lastRun"] == known
    eventually(lambda: last_runs(exporter).get("often") == known)


def test_what_was_registered_before_bullmq_5_is_read_from_its_key(
    server: Server, start_exporter: StartExporter
) -> None:
    at = int(time.time() * 1000) + YEAR
    keys = ["sync:::Europe/Rome:*/5 * * * *", "report:id:1999999999999::60000", "odd:key"]
    with server.client() as client:
        client.hset("bull:q:meta", "version", "bullmq:4.17.0")
        client.zadd("bull:q:repeat", {key: at + place for place, key in enumerate(keys)})
    exporter = start_exporter(server.url)
    eventually(lambda: exporter.api.get("/v1/jobs/queues").json["queues"])
    found = schedulers(exporter)
    reported = {
        key: [found[key][name] for name in ("name", "pattern", "every", "tz", "endDate")]
        for key in keys
    }
    assert reported == {
        keys[0]: ["sync", "*/5 * * * *", None, "Europe/Rome", None],
        keys[1]: ["report", None, 60_000, None, 1_999_999_999_999],
        keys[2]: ["odd", None, None, None, None],
    }
    assert eventually(lambda: info(exporter))[keys[0]] == ("*/5 * * * *", "Europe/Rome")


def test_many_schedulers_come_in_pages_and_long_values_are_cut(
    server: Server, start_exporter: StartExporter
) -> None:
    long = "k" * 300
    cut = f"{'k' * 191}~{hashlib.sha1(long.encode()).hexdigest()[:8]}"
    with server.client() as client:
        client.hset("bull:q:meta", "version", "bullmq:5.56.3")
        client.hset("bull:none:meta", "version", "bullmq:5.56.3")
        client.set("bull:none:repeat", "not what BullMQ writes")
        client.zadd("bull:q:repeat", {f"s{number:03}": number + 1 for number in range(119)})
        client.zadd("bull:q:repeat", {long: 10_000_000_000_000})
        client.hset("bull:q:repeat:s000", mapping={"name": "x", "limit": 3, "ic": 3})
        client.hset("bull:q:repeat:s001", mapping={"name": "x", "limit": 3, "ic": 2})
        client.hset("bull:q:repeat:s002", mapping={"name": "x", "pattern": "p" * 10_000})
        # What is too long even to be read is not reported.
        client.hset("bull:q:repeat:s010", mapping={"name": "n" * 20_000, "tz": "t" * 1_000_000})
        client.zadd("bull:q:repeat", {"s020" + "k" * 20_000: 0})
        client.hset("bull:q:repeat:s003", mapping={"name": "x", "every": "1e99", "endDate": "-1"})
        client.set("bull:q:repeat:s004", "not what BullMQ writes")
        client.hset("bull:q:repeat:s005:6", mapping={"timestamp": 7, "opts": '{"repeat": 1}'})
        client.hset("bull:q:repeat:s006:7", mapping={"timestamp": 7, "opts": "["})
        repeat = '{"removeOnFail": {"count": 9}, "repeat": {"count": 1}}'
        client.hset("bull:q:repeat:s007:8", mapping={"timestamp": 7, "opts": repeat})
        repeat = '{"repeat": {"count": 2, "every": 5}}'
        client.hset("bull:q:repeat:s008:9", mapping={"timestamp": 7, "opts": repeat})
        client.hset("bull:q:repeat:s009:10", mapping={"processedOn": 8, "opts": repeat})
    exporter = start_exporter(server.url)
    eventually(lambda: exporter.api.get("/v1/jobs/queues").json["queues"])
    first = exporter.api.get("/v1/jobs/queues/q/schedulers").json
    assert len(first["schedulers"]) == 99
    assert first["pagination"] == {
        "currentPage": 1,
        "totalPages": 2,
        "totalSchedulers": 121,
        "limit": 100,
    }
    assert [*schedulers(exporter, query="?page=2")][-2:] == ["s118", cut]
    assert schedulers(exporter, query="?page=3&limit=1000") == {}
    found = schedulers(exporter)
    assert [found[f"s00{number}"]["ended"] for number in range(2)] == [True, False]
    assert [found[f"s00{number}"]["overdue"] for number in range(2)] == [False, True]
    assert len(found["s002"]["pattern"]) == 200
    assert (found["s010"]["name"], found["s010"]["tz"]) == (None, None)
    assert found["s010"]["nextRun"] == 11
    assert (found["s003"]["every"], found["s003"]["endDate"]) == (None, None)
    assert found["s004"]["name"] is None
    ran = {key: each["lastRun"] for key, each in found.items() if each["lastRun"] is not None}
    assert ran == {"s008": 7, "s009": 8}
    broken = exporter.api.get("/v1/jobs/queues/none/schedulers")
    assert (broken.status, broken.json["pagination"]["totalSchedulers"]) == (200, None)
    assert exporter.api.get("/v1/jobs/queues/gone/schedulers").status == 404
    eventually(lambda: last_runs(exporter) == {"s008": 7, "s009": 8})
    lengths = {len(pattern) for pattern, _ in info(exporter).values()}
    assert lengths == {0, 200}


async def test_no_more_schedulers_are_read_than_are_exposed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where some have ended, those behind them."""
    now = int(time.time() * 1000)
    readings = []
    with server.client() as client:
        for queue, ended in (("alive", 0), ("ended", 5)):
            client.zadd(f"bull:{queue}:repeat", {f"{at:03}": now + YEAR + at for at in range(300)})
            for at in range(ended):
                client.zadd(f"bull:{queue}:repeat", {f"{at:03}": at + 1})
                client.hset(f"bull:{queue}:repeat:{at:03}", mapping={"limit": 1, "ic": 1})
            readings.append(QueueReading(Queue.named("bull", queue), {}, schedulers=300))
    read: Counter[str] = Counter()

    def made(queue: Queue, row: Any) -> Scheduler:
        read[queue.name] += 1
        return scheduler_of(queue, row)

    scheduler_of = module._scheduler
    monkeypatch.setattr(module, "_scheduler", made)
    redis = RedisReader(RedisSettings(host="127.0.0.1", port=server.port), connections=1)
    try:
        settings = Settings(max_schedulers=50)
        facts = await Schedulers(redis, settings).collect(readings, seconds=60)
    finally:
        await redis.close()
    shown = {
        queue.name: [each.label for each in known.schedulers] for queue, known in facts.items()
    }
    assert shown == {
        "alive": [f"{at:03}" for at in range(50)],
        "ended": [f"{at:03}" for at in range(5, 55)],
    }
    assert read == {"alive": 50, "ended": 250}


def test_schedulers_that_have_ended_hide_none_behind_them(
    server: Server, start_exporter: StartExporter
) -> None:
    """BullMQ leaves them in front of all others for ever."""
    now = int(time.time() * 1000)
    ended = [f"limit{number}" for number in range(4)] + [f"end{number}" for number in range(4)]
    alive = {"late": now - 120_000, "next": now + YEAR, "last": now + 2 * YEAR}
    with server.client() as client:
        client.hset("bull:q:meta", "version", "bullmq:5.56.3")
        client.zadd("bull:q:repeat", {key: 1_000 + place for place, key in enumerate(ended)})
        client.zadd("bull:q:repeat", alive)
        for key in ended:
            end = {"limit": 2, "ic": 2} if key.startswith("limit") else {"endDate": now - 1}
            # One that has ended does not run once too often, though another one does the same.
            client.hset(f"bull:q:repeat:{key}", mapping={"name": "late", "every": 1000, **end})
        for key in alive:
            # The last run that is allowed is still to come.
            living = {"name": key, "every": 1000, "limit": 2, "ic": 1, "endDate": now + YEAR}
            client.hset(f"bull:q:repeat:{key}", mapping=living)
    exporter = start_exporter(server.url, EXPORTER_MAX_SCHEDULERS="2")
    reported = eventually(lambda: exporter.metrics.samples(NEXT_RUN))
    assert reported == {("q", key): pytest.approx(alive[key] / 1000) for key in ("late", "next")}
    # Two more read them, and mean the same by it: the slow read and the API, which returns all.
    intervals = exporter.metrics.samples(INTERVAL)
    assert [*intervals] == [*reported]
    duplicates = "bullmq_queue_duplicate_schedulers"
    assert exporter.metrics.value(duplicates, queue="q") == 0
    found = schedulers(exporter)
    assert [key for key, each in found.items() if each["ended"]] == ended
    assert [*found][len(ended) :] == [*alive]


def test_which_schedulers_are_exposed_does_not_change_as_they_run(
    server: Server, start_exporter: StartExporter
) -> None:
    hour = 3600_000
    begin = int(time.time() * 1000) + hour

    def plan(names: Sequence[str], first: int) -> None:
        times = {name: first + number for number, name in enumerate(names)}
        client.zadd("bull:q:repeat", times)
        for name, at in times.items():
            client.hset(f"bull:q:repeat:{name}", mapping={"name": name, "every": hour})
            job = {"timestamp": begin, "processedOn": at - hour}
            client.hset(f"bull:q:repeat:{name}:{at}", mapping=job)

    def exposed(name: str) -> set[str]:
        return {scheduler for _, scheduler in exporter.metrics.samples(name)}

    names = [f"s{number:03}" for number in range(150)]
    with server.client() as client:
        client.hset("bull:q:meta", "version", "bullmq:5.56.3")
        plan(names, begin)
        exporter = start_exporter(server.url, EXPORTER_MAX_SCHEDULERS="100")
        kept = set(names[:100])
        eventually(lambda: info(exporter).keys() == kept)
        # Each of those runs, and is due again later than the others.
        plan(names[:100], begin + hour)
        later = (begin + hour) / 1000
        eventually(lambda: min(exporter.metrics.samples(NEXT_RUN).values()) == later)
        eventually(lambda: set(last_runs(exporter).values()) == set(range(begin, begin + 100)))
        assert (
            exposed(NEXT_RUN)
            == exposed(LAST_RUN)
            == exposed(INTERVAL)
            == info(exporter).keys()
            == kept
        )
        # Another one is overdue; and one goes.
        client.zadd("bull:q:repeat", {"s140": begin - 2 * hour})
        client.zrem("bull:q:repeat", "s007")
        kept = (kept - {"s007"}) | {"s140"}
        eventually(lambda: exposed(NEXT_RUN) == kept)
        eventually(lambda: info(exporter).keys() == kept)
