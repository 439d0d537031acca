"""How many finished jobs a queue keeps: from its newest jobs' options, or from the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.queues.queue import Queue, State
from exporter.queues.snapshot import QueueReading
from exporter.settings import RedisSettings, Settings
from exporter.stores.bullmq.collectors.retention import Retention
from exporter.stores.redis.client import RedisReader
from tests.support.exporters import StartExporter
from tests.support.servers import Server
from tests.support.waiting import eventually

LIMIT = "bullmq_queue_retention_limit"


@pytest.mark.parametrize(
    ("option", "limit"),
    [
        ("5000", 5000),
        ('{"count": 5000, "age": 60}', 5000),
        ("true", 0),  # it is deleted at once
        ("0", 0),
        ("false", None),  # all are kept
        ('{"age": 3600}', None),
        ("-1", None),
        ('"many"', None),
        ("[1]", None),
    ],
)
async def test_the_newest_finished_job_says_how_many_are_kept(
    server: Server, option: str, limit: int | None
) -> None:
    queue = Queue.named("bull", "mail")
    with server.client() as client:
        client.zadd("bull:mail:failed", {"old": 1_000, "new": 2_000})
        client.hset("bull:mail:old", "opts", '{"removeOnFail": 1}')
        client.hset("bull:mail:new", "opts", f'{{"removeOnFail": {option}}}')
    redis = RedisReader(RedisSettings(host="127.0.0.1", port=server.port), connections=1)
    collector = Retention(redis, Settings(), lambda *_: None)
    try:
        found = await collector.collect([QueueReading(queue, {})], seconds=60)
    finally:
        await redis.close()
    assert found == {queue: {} if limit is None else {State.FAILED: limit}}


def test_a_configured_limit_needs_no_job_and_takes_the_place_of_its_option(
    server: Server, start_exporter: StartExporter, tmp_path: Path
) -> None:
    with server.client() as client:
        client.hset("bull:mail:meta", "version", "bullmq:5.56.3")
        client.zadd("bull:mail:completed", {"1": 1_000})
        client.hset("bull:mail:1", "opts", '{"removeOnComplete": 5, "removeOnFail": 5}')
    settings = tmp_path / "exporter.yml"
    settings.write_text("retention: {failed: 7}")
    exporter = start_exporter(server.url, "--config", str(settings))
    eventually(lambda: len(exporter.metrics.samples(LIMIT, queue="mail")) == 2)
    value = exporter.metrics.value
    assert value(LIMIT, queue="mail", state="failed") == 7
    assert value(LIMIT, queue="mail", state="completed") == 5
