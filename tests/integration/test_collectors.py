"""Slow reads: one that fails leaves the others and the poll as they are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from exporter.collect.collectors import Collectors
from exporter.concurrency.request_priority import RequestPriority
from exporter.queues.queue import Queue
from exporter.queues.snapshot import QueueFacts, QueueReading
from exporter.settings import Settings
from exporter.stores.bullmq.bull_queues import BullQueues
from exporter.stores.bullmq.collectors import all_collectors
from exporter.stores.redis.client import RedisReader, RedisRefused, RedisUnavailable
from tests.support.exporters import StartExporter
from tests.support.servers import Server
from tests.support.waiting import eventually

QUEUE = Queue.named("bull", "mail")
READINGS = [QueueReading(QUEUE, {})]
SUCCESS = "bullmq_exporter_collector_success"
NAMES = ("workers", "retention", "schedulers", "missing_jobs")


class Facts:
    """A collector whose run ends as its test says."""

    interval = 60.0
    problem = "facts cannot be read"
    consequence = "BullMQFacts cannot fire"

    def __init__(self, name: str, *, max_share: float = 1.0) -> None:
        self.name, self.max_share = name, max_share
        self.runs = 0
        self.error: Exception | None = None
        self.seconds = 0.0

    async def collect(
        self,
        readings: Sequence[QueueReading],
        *,
        seconds: float,
    ) -> Mapping[Queue, Any]:
        self.runs += 1
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return dict.fromkeys([reading.queue for reading in readings], self.runs)

    def forget(self) -> None:
        self.runs = 0


@pytest.fixture
def workers() -> Facts:
    return Facts("workers")


@pytest.fixture
def others() -> Facts:
    return Facts("retention")


@pytest.fixture
def collectors(workers: Facts, others: Facts) -> Collectors:
    return Collectors([workers, others], RedisReader(Settings().redis, connections=1).understanding)


def values(collectors: Collectors) -> tuple[Any, Any]:
    facts = collectors.facts.of(QUEUE)
    return facts.workers, facts.retention


@pytest.mark.parametrize(
    "error",
    [
        RedisUnavailable("cut"),
        RedisRefused("NOPERM"),
        ValueError("not what was asked for"),  # an invalid reply
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_one_that_fails_has_no_facts_until_it_succeeds_and_the_others_have_theirs(
    collectors: Collectors, workers: Facts, error: Exception
) -> None:
    await collectors.run_due(READINGS, seconds=60)
    assert values(collectors) == (1, 1)
    workers.error = error
    collectors._due.clear()
    facts = await collectors.run_due(READINGS, seconds=60)
    assert values(collectors) == (None, 2)
    assert {name: run.success for name, run in facts.runs.items()} == {
        "workers": False,
        "retention": True,
    }
    workers.error = None
    collectors._due.clear()
    await collectors.run_due(READINGS, seconds=60)
    assert values(collectors) == (3, 3)


async def test_one_that_never_ends_is_ended(collectors: Collectors, workers: Facts) -> None:
    workers.seconds = 3600
    facts = await collectors.run_due(READINGS, seconds=0.01)
    assert values(collectors) == (None, 1)
    assert not facts.runs["workers"].success


async def test_none_runs_before_it_is_due_and_what_is_known_stays(
    collectors: Collectors, workers: Facts, others: Facts
) -> None:
    first = await collectors.run_due(READINGS, seconds=60)
    again = await collectors.run_due(READINGS, seconds=60)
    assert again is first
    assert workers.runs == others.runs == 1
    del collectors._due["retention"]
    later = await collectors.run_due(READINGS, seconds=60)
    assert later.version > first.version
    assert values(collectors) == (1, 2)


async def test_after_an_outage_nothing_is_known_and_all_are_due(
    collectors: Collectors, workers: Facts
) -> None:
    before = await collectors.run_due(READINGS, seconds=60)
    collectors.expire()
    assert collectors.facts.of(QUEUE) == QueueFacts()
    assert collectors.facts.runs == {}
    assert collectors.facts.version > before.version
    await collectors.run_due(READINGS, seconds=60)
    assert workers.runs == 2
    collectors.forget()
    assert workers.runs == 0


async def test_one_that_takes_long_rests_for_longer() -> None:
    costly = Facts("workers", max_share=0.0001)
    costly.interval, costly.seconds = 0.0, 0.05
    collectors = Collectors([costly], RedisReader(Settings().redis, connections=1).understanding)
    for _ in range(3):
        await collectors.run_due(READINGS, seconds=60)
    assert costly.runs == 1


async def test_a_refusal_is_logged_once_and_when_it_is_over(
    collectors: Collectors, workers: Facts, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for error in (RedisRefused("NOPERM"), RedisRefused("NOPERM"), None, None):
        workers.error = error
        collectors._due.clear()
        await collectors.run_due(READINGS, seconds=60)
        refused = [str(remark) for remark in collectors.remarks()]
        expected = "facts cannot be read: NOPERM; BullMQFacts cannot fire"
        assert refused == ([expected] if error else [])
    assert [record.message for record in caplog.records] == [
        "facts cannot be read",
        "a collector succeeds again",
    ]


def test_each_has_a_field_of_its_facts_and_metrics_of_its_own() -> None:
    settings = Settings()
    reader = RedisReader(settings.redis, connections=1)
    names = [
        each.name
        for each in all_collectors(
            reader, settings, RequestPriority(), lambda *_: None, BullQueues()
        )
    ]
    assert tuple(names) == QueueFacts._fields == NAMES
    disabled = Settings(workers_interval=0)
    assert [
        each.name
        for each in all_collectors(
            reader, disabled, RequestPriority(), lambda *_: None, BullQueues()
        )
    ] == [*NAMES[1:]]


def test_redis_refuses_one_of_them(own_server: Server, start_exporter: StartExporter) -> None:
    with own_server.client() as admin:
        admin.hset("bull:mail:meta", "version", "bullmq:5.56.3")
        admin.rpush("bull:mail:wait", "1")
        admin.hset("bull:mail:1", "name", "import")
        admin.zadd("bull:mail:completed", {"2": 1_000})
        admin.hset("bull:mail:2", mapping={"name": "import", "opts": '{"removeOnComplete": 7}'})
        exporter = start_exporter(own_server.url, EXPORTER_WORKERS_INTERVAL="0.2")
        value = exporter.metrics.value
        assert {name: value(SUCCESS, collector=name) for name in NAMES} == dict.fromkeys(NAMES, 1)
        with refused(admin, "client|list"):
            eventually(lambda: value(SUCCESS, collector="workers") == 0)
            assert exporter.metrics.samples("bullmq_queue_workers") == {}
            assert value("bullmq_up") == 1
            assert value("bullmq_queue_retention_limit", queue="mail", state="completed") == 7
            assert value("bullmq_queue_missing_jobs", queue="mail", state="waiting") == 0
            assert [value(SUCCESS, collector=name) for name in NAMES[1:]] == [1, 1, 1]
        eventually(lambda: value(SUCCESS, collector="workers") == 1)
        assert value("bullmq_queue_workers", queue="mail") == 0
        own_server.stop()
        eventually(lambda: value("bullmq_up") == 0)
        assert exporter.metrics.samples(SUCCESS) == {}


@contextmanager
def refused(admin: Any, command: str) -> Iterator[None]:
    admin.execute_command("ACL", "SETUSER", "default", f"-{command}")
    try:
        yield
    finally:
        admin.execute_command("ACL", "SETUSER", "default", f"+{command}")
