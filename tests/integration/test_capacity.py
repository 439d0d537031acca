"""Requests to the API while targets hang, and while there are more than connections to Redis."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from exporter.collect.target import Target
from exporter.concurrency.request_priority import RequestPriority
from exporter.deadline import Deadline
from exporter.metrics.health import Health
from exporter.queues.errors import StoreUnavailable
from exporter.settings import ApiSettings, RedisSettings, Settings
from exporter.stores.redis.client import NoConnection, RedisReader, RedisUnavailable
from exporter.web import jobs_api
from exporter.web.api import api_app
from exporter.web.jobs_api import JobsApi
from exporter.web.redaction import Redaction
from tests.support.exporters import API_KEY
from tests.support.lying_server import LyingServer
from tests.support.servers import Server

UNKNOWN = "/v1/jobs/queues/unknown"


@pytest.fixture
def front(server: Server) -> Iterator[LyingServer]:
    with server.client() as client:
        client.hset("bull:mail:meta", "version", "bullmq:5.56.3")
    with LyingServer(server.port) as lying:
        yield lying


def target_at(front: LyingServer, name: str, timeout: float, *prefixes: str) -> Target:
    async def publish(*_: object) -> None: ...

    redis = RedisSettings(host="127.0.0.1", port=front.port, timeout=timeout)
    watched = Settings(redis=redis, prefix=prefixes or ("bull",))
    return Target(name, watched, publish, publish, RequestPriority(), deadline=Deadline())


async def answers_of(targets: list[Target], *paths: str) -> list[tuple[int, Any]]:
    """The statuses and bodies of these requests, which are made at the same time."""
    for target in targets:
        assert (await target.watcher.poll()).snapshot is not None
    api = ApiSettings(key=SecretStr(API_KEY), rate_limit=0)
    jobs = JobsApi(targets, Redaction(()), search_seconds=5)
    app = api_app(jobs, api, Health(), RequestPriority())
    async with TestClient(TestServer(app), headers={"X-API-KEY": API_KEY}) as client:

        async def answer(path: str) -> tuple[int, Any]:
            async with client.get(path) as response:
                return response.status, await response.json()

        found = await asyncio.gather(*map(answer, paths))
    for target in targets:
        await target.close()
    return found


class Hanging:
    """Holds every reply to one kind of command back until the test ends."""

    def __init__(self, kind: bytes) -> None:
        self.kind, self.asked, self.ended = kind, 0, threading.Event()

    def __call__(self, kind: bytes, _: bytes) -> None:
        if kind == self.kind:
            self.asked += 1
            self.ended.wait()


async def test_all_targets_are_asked_at_the_same_time(front: LyingServer) -> None:
    together = threading.Barrier(5)

    def lie(kind: bytes, _: bytes) -> None:
        if kind == b"page.lua":
            together.wait(60)  # or the barrier is broken, and the connection with it

    front.lie = lie
    targets = [target_at(front, f"t{number}", 60) for number in range(5)]
    [(status, _)] = await answers_of(targets, UNKNOWN)
    assert status == 404


async def test_a_target_that_hangs_is_asked_once_for_one_request(front: LyingServer) -> None:
    """Not once for each prefix: its time limit would be as many times as long."""
    front.lie = hanging = Hanging(b"page.lua")
    try:
        target = target_at(front, "t", 1, *(f"p{number}" for number in range(18)))
        [(status, body)] = await answers_of([target], UNKNOWN)
    finally:
        hanging.ended.set()
    assert (status, body) == (503, {"message": RedisUnavailable.public})
    assert hanging.asked == 1


async def test_a_request_has_one_time_limit_however_many_reads_it_takes(
    front: LyingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them is answered in time."""
    monkeypatch.setattr(jobs_api, "REQUEST_TIMEOUTS", 0.01)

    def lie(kind: bytes, _: bytes) -> None:
        if kind == b"page.lua":
            time.sleep(1)

    front.lie = lie
    [(status, body)] = await answers_of([target_at(front, "t", 30)], "/v1/jobs/queues/mail")
    assert (status, body) == (503, {"message": StoreUnavailable.public})


async def test_who_finds_no_free_connection_is_answered_so_while_redis_answers(
    front: LyingServer,
) -> None:
    def lie(kind: bytes, _: bytes) -> None:
        if kind == b"LLEN":
            time.sleep(0.5)

    front.lie = lie
    redis = RedisSettings(host="127.0.0.1", port=front.port, timeout=2)
    reader = RedisReader(redis, connections=1)
    calls = [reader.command("LLEN", "bull:mail:wait") for _ in range(20)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert answers[0] == 0
    assert isinstance(answers[-1], NoConnection)

    front.lie = hanging = Hanging(b"LLEN")
    try:
        calls = [reader.command("LLEN", "bull:mail:wait") for _ in range(5)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
    finally:
        hanging.ended.set()
    assert [type(answer) for answer in answers] == [RedisUnavailable] * 5
    await reader.close()


async def test_a_client_over_capacity_gets_the_true_reason(front: LyingServer) -> None:
    def lie(kind: bytes, _: bytes) -> None:
        if kind == b"page.lua":
            time.sleep(0.5)

    front.lie = lie
    target = target_at(front, "t", 4)
    found = await answers_of([target], *["/v1/jobs/queues/mail"] * 100)
    assert {status for status, _ in found} == {200, 503}
    messages = {body["message"] for status, body in found if status == 503}
    assert messages == {NoConnection.public}
