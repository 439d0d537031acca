"""No reply of a server ends more than the round that asked for it, whatever it is."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from redis import exceptions

from exporter.collect.target import Target
from exporter.collect.watcher import Watcher, watched_queues
from exporter.concurrency.request_priority import RequestPriority
from exporter.deadline import Deadline
from exporter.metrics.health import Health
from exporter.queues.queue import Queue
from exporter.queues.snapshot import Outcome, Snapshot
from exporter.queues.tallies import Count
from exporter.settings import ApiSettings, EventsSettings, RedisSettings, Settings
from exporter.stores.bullmq.events import check_rounds
from exporter.stores.bullmq.events import follower as following
from exporter.stores.bullmq.events.follower import Follower
from exporter.stores.bullmq.keys import events_key
from exporter.stores.events import stale_jobs
from exporter.stores.redis.client import InvalidReply, RedisReader, RedisUnavailable
from exporter.stores.redis.connections import _ReplyParser
from exporter.stores.redis_store import RedisStore
from exporter.web.api import api_app
from exporter.web.jobs_api import JobsApi
from exporter.web.redaction import Redaction
from tests.support.exporters import API_KEY, StartExporter
from tests.support.lying_server import LyingServer
from tests.support.servers import Server, running
from tests.support.waiting import eventually

LISTS = ("wait", "active")
SETS = ("delayed", "prioritized", "waiting-children", "completed", "failed", "repeat")
CUT = LyingServer.CUT
QUEUES = ("import", "mail", "old")
NOTHING = (b"*-1\r\n", b"$-1\r\n", b"_\r\n", b"*0\r\n")
# In place of any reply: of another type, of another form, no RESP, or only a part.
REPLIES = (
    *NOTHING,
    *(b"+OK\r\n", b":-7\r\n", b"#t\r\n", b",nan\r\n"),
    *(b"$4\r\nnull\r\n", b"$0\r\n\r\n", b"*1\r\n*1\r\n*1\r\n*-1\r\n", b"(99999999999999999999\r\n"),
    *(b"*2\r\n:0\r\n*3\r\n+a\r\n_\r\n:1\r\n", b"%1\r\n+a\r\n*1\r\n_\r\n", b"~1\r\n+a\r\n"),
    *(b"*2\r\n$1\r\n0\r\n*2\r\n:1\r\n:2\r\n", b">1\r\n+a\r\n", b"-\r\n", b"-ERR \xff\x1b[31m\r\n"),
    *(b":0\r\n:0\r\n", b"*2147483647\r\n", b"*2\r\n:1\r\n*99999999\r\n", b"HTTP/1.1 400 Bad\r\n"),
    *(b"\x00\xff", b"*" * 200 + b"\r\n", CUT, b"$100\r\nabc" + CUT, b"*3\r\n:1\r\n" + CUT),
)
POLLED = (
    *(b"HEXISTS", b"LLEN", b"ZCARD", b"EXISTS", b"SCAN", b"ZREVRANGE", b"HGET", b"CLIENT"),
    *(b"LRANGE", b"ZRANGE", b"TYPE", b"HELLO", b"edges.lua", b"schedulers.lua"),
)
FOLLOWED = (b"XREAD", b"XINFO", b"HMGET", b"EXISTS", b"HELLO")
ASKED = (b"page.lua", b"job.lua", b"children.lua", b"HMGET", b"EXISTS", b"ZCARD", b"LLEN")


def fill(server: Server) -> None:
    """Three queues with something in each state; `meta` of two is gone, and the events of one."""
    with server.client() as client:
        for queue in QUEUES:
            base = f"bull:{queue}"
            for at, name in enumerate((*LISTS, *SETS)):
                job, key = str(at), f"{base}:{name}"
                if name in LISTS:
                    client.lpush(key, job)
                else:
                    client.zadd(key, {job: 1_795_500_000_000})
                fields = {"name": "import", "data": "{}", "opts": "{}", "failedReason": "Error: x"}
                client.hset(f"{base}:{job}", mapping=fields | {"timestamp": "1795500000000"})
            client.sadd(f"{base}:4:dependencies", f"{base}:0")
        client.hset("bull:mail:meta", "version", "bullmq:5.56.3")
        for queue in ("mail", "import"):
            event = {"event": "added", "jobId": "0", "name": "import"}
            client.xadd(f"bull:{queue}:events", event)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running("valkey", tmp_path_factory.mktemp("valkey")) as server:
        fill(server)
        yield server


@pytest.fixture
def lying(filled: Server) -> Iterator[LyingServer]:
    with LyingServer(filled.port) as server:
        yield server


class Lies:
    """Answers every command of one kind with the same."""

    def __init__(self, kind: bytes, reply: bytes) -> None:
        self.kind, self.reply, self.sent = kind, reply, 0

    def __call__(self, kind: bytes, _: bytes) -> bytes | None:
        if kind != self.kind:
            return None
        self.sent += 1
        return self.reply


def truth(lies: LyingServer) -> None:
    lies.lie = lambda _, __: None


@pytest.mark.parametrize("kind", POLLED, ids=bytes.decode)
async def test_a_poll_fails_or_reports_the_truth_and_the_next_one_succeeds(
    lying: LyingServer, kind: bytes
) -> None:
    redis = RedisSettings(host="127.0.0.1", port=lying.port, timeout=20)
    settings = Settings(redis=redis)
    watched = watched_queues(settings)
    store = RedisStore(settings, watched, RequestPriority())

    async def publish(_: Outcome) -> None: ...

    watcher = Watcher(store, watched, settings, publish)
    for reply in REPLIES:
        lying.lie = Lies(kind, reply)
        if kind == b"HELLO":
            await store.close()
        watcher._collectors.expire()
        outcome = await watcher.poll()
        if outcome.snapshot is not None:
            assert_true(outcome.snapshot)
        try:
            with store.understanding():
                await watcher._discover(0.0)
        except RedisUnavailable as error:
            assert len(str(error)) < 500
        truth(lying)
        if kind == b"HELLO":
            await store.close()
        watcher._collectors.expire()
        watched._queues = None  # a search that was refused in part finds fewer until the next one
        outcome = await watcher.poll()
        assert outcome.snapshot is not None, (reply, outcome.error)
        assert_true(outcome.snapshot, whole=True)
    await store.close()


def assert_true(snapshot: Snapshot, *, whole: bool = False) -> None:
    """Nothing in it is anything else than the truth; where it is `whole`, nothing is absent."""
    for reading in snapshot.readings:
        assert all(type(count) is int and 0 <= count <= 1 for count in reading.counts.values())
        assert reading.version in (None, "bullmq:5.56.3")
        assert reading.oldest_waiting in (None, 1_795_500_000)
    if whole:
        assert [reading.queue.name for reading in snapshot.readings] == list(QUEUES)
        assert all(len(reading.counts) == 8 for reading in snapshot.readings)
        assert all(sum(reading.counts.values()) == 7 for reading in snapshot.readings)
        assert "workers" in snapshot.facts.by_collector


@pytest.mark.parametrize("kind", ASKED, ids=bytes.decode)
async def test_a_request_is_answered_503_and_the_next_one_is_answered(
    lying: LyingServer, kind: bytes
) -> None:
    redis = RedisSettings(host="127.0.0.1", port=lying.port, timeout=20)

    async def publish(*_: object) -> None: ...

    target = Target(
        None, Settings(redis=redis), publish, publish, RequestPriority(), deadline=Deadline()
    )
    await target.watcher.poll()
    api = ApiSettings(key=SecretStr(API_KEY), rate_limit=0)
    jobs = JobsApi([target], Redaction(()), search_seconds=5)
    server = TestServer(api_app(jobs, api, Health(), RequestPriority()))
    async with TestClient(server, headers={"X-API-KEY": API_KEY}) as client:

        async def ask(path: str) -> tuple[int, Any]:
            async with client.get(path) as response:
                return response.status, await response.json()

        true = {path: (await ask(path))[0] for path in PATHS}
        assert true == dict.fromkeys(PATHS, 200)
        for reply in REPLIES:
            for path in PATHS:
                lying.lie = lies = Lies(kind, reply)
                status, body = await ask(path)
                assert status in (200, 404, 503), (path, reply)
                if status == 503:
                    assert lies.sent
                    assert body["message"] in (InvalidReply.public, RedisUnavailable.public)
                truth(lying)
                assert (await ask(path))[0] == 200, (path, reply)
    await target.close()


VALUES = st.recursive(
    st.sampled_from(
        [
            *(b"", b"a", b"\n*1234567\r\n", b"*99999999\r\n", b"\r\n~7654321", b"x\n*"),
            *(b"\r\n|1\r\n", b"x\n|", b"\n>1\r\n"),
        ]
    ),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=8,
)
PUSH = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\nkey\r\n"
ATTRIBUTE = b"|1\r\n$3\r\nttl\r\n:3\r\n"
HUGE = st.sampled_from([b"*2147483647\r\n", b"~1000000\r\n", b">12345678\r\n", ATTRIBUTE, PUSH])


def in_resp(value: bytes | list[Any]) -> bytes:
    if isinstance(value, list):
        return b"*%d\r\n%b" % (len(value), b"".join(map(in_resp, value)))
    return b"$%d\r\n%b\r\n" % (len(value), value)


@settings(max_examples=200)
@given(
    values=st.lists(VALUES, min_size=1, max_size=3),
    huge=st.none() | HUGE,
    begin=st.sampled_from([b"", b"*2\r\n"]),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5),
)
def test_a_list_of_millions_is_refused_and_no_text_is_taken_for_one(
    values: list[Any], huge: bytes | None, begin: bytes, sizes: list[int]
) -> None:
    """hiredis would make room for it; a text may hold the same bytes, and pieces end anywhere.

    So are pushes and attributes, which it returns among the replies.
    """
    whole = b"".join(map(in_resp, values))
    whole += begin + huge if huge else b""
    replies = _ReplyParser(len(values) + bool(huge), Exception)
    pieces = itertools.cycle(sizes)

    def feed() -> None:
        at = 0
        while at < len(whole):
            size = next(pieces)
            replies.feed(whole[at : at + size])
            at += size

    if huge is None:
        feed()
        assert replies.is_complete
        assert replies.answers == values
    else:
        with pytest.raises(exceptions.InvalidResponse, match="a list is too long"):
            feed()


@pytest.mark.parametrize("extra", [PUSH, ATTRIBUTE], ids=["push", "attribute"])
async def test_what_a_server_sends_unasked_is_no_reply(
    lying: LyingServer, filled: Server, extra: bytes
) -> None:
    """Otherwise each reply would be taken for that to the command before."""
    redis = RedisSettings(host="127.0.0.1", port=lying.port, timeout=20)
    reader = RedisReader(redis, connections=1)
    with filled.client() as client:
        client.mset({f"key-{number}": number for number in range(3)})
    for number in range(3):
        lying.lie = lambda kind, reply: extra + reply if kind == b"GET" else None
        with pytest.raises(InvalidReply):
            await reader.command("GET", "key-0")
        lying.lie = lambda _, __: None
        assert await reader.command("GET", f"key-{number}") == b"%d" % number
    await reader.close()


def test_replies_are_bounded() -> None:
    replies = _ReplyParser(1, Exception, max_bytes=1000)
    with pytest.raises(exceptions.InvalidResponse, match="more than"):
        replies.feed(b"$5000\r\n" + b"x" * 2000)


PATHS = (
    *("/v1/jobs/queues?detail=true", "/v1/jobs/queues/mail?detail=true&limit=2"),
    *("/v1/jobs/queues/mail/failures", "/v1/jobs/queues/mail?text=import"),
    *("/v1/jobs/queues/mail/jobs/4", "/v1/jobs/keys/bull:mail:4"),
    "/v1/jobs/queues/mail/schedulers",
)


@pytest.mark.parametrize("kind", FOLLOWED, ids=bytes.decode)
async def test_events_are_counted_once_whatever_is_answered_between(
    lying: LyingServer, filled: Server, kind: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_rounds, "CHECK_INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(check_rounds, "CHECK_ALL_INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(stale_jobs, "EXISTS_INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(following, "PAUSE", 0.0)
    monkeypatch.setattr(following, "BLOCK", 0.01)
    queue = Queue.named("bull", f"followed-{kind.decode().lower()}")
    redis = RedisSettings(host="127.0.0.1", port=lying.port, timeout=20)
    reader = RedisReader(redis, connections=1)
    follower = Follower(reader, EventsSettings(), lambda: (queue,), redis_timeout=20)

    async def step() -> bool:
        """One as `run` makes it; whether it succeeded."""
        try:
            await follower._run_step()
        except RedisUnavailable:
            follower._begin_anew()
            return False
        return True

    written = completed = missed = 0
    assert await step()
    with filled.client() as client:
        for reply in REPLIES:
            lying.lie = lies = Lies(kind, reply)
            if kind == b"HELLO":
                await reader.close()
            for _ in range(6):
                written += 1
                for event in ("waiting", "active", "completed"):
                    fields = {"event": event, "jobId": f"{kind!r}{written}"}
                    client.xadd(events_key(queue), fields)
                # One that is not finished is asked for.
                waits = {"event": "waiting", "jobId": f"waits-{written}", "prev": "active"}
                client.xadd(events_key(queue), waits)
                await step()
                if lies.sent:
                    break
            assert lies.sent, (kind, reply)
            truth(lying)
            tallies = None
            for _ in range(20):
                if await step() and (tallies := await follower.tallies()):
                    completed = sum(
                        each.values[Count.COMPLETED]
                        for each in tallies.queues[queue].by_name.values()
                    )
                    missed = tallies.queues[queue].missed
                    if 4 * completed + missed == 4 * written:
                        break
            # That there is nothing new is a valid reply; what is then skipped is said to be missed.
            assert tallies is not None and 4 * completed + missed == 4 * written, reply
            assert missed <= 4 * 6 * len(NOTHING)
    await reader.close()


def test_a_target_that_lies_harms_no_other_one(
    lying: LyingServer, filled: Server, tmp_path: Path, start_exporter: StartExporter
) -> None:
    with running("redis", tmp_path) as good:
        fill(good)
        file = tmp_path / "exporter.yml"
        targets = {"bad": lying, "good": good}
        entries = [
            {"name": name, "redis": {"host": "127.0.0.1", "port": each.port, "timeout": 20}}
            for name, each in targets.items()
        ]
        file.write_text(json.dumps({"targets": entries}))
        exporter = start_exporter("", "--config", str(file))
        value = exporter.metrics.value
        eventually(lambda: value("bullmq_exporter_events_followed", target="bad"))
        eventually(lambda: value("bullmq_exporter_events_followed", target="good"))
        turns = itertools.cycle(REPLIES)
        sent: Counter[bytes] = Counter()

        def lie(kind: bytes, _: bytes) -> bytes | None:
            if kind in (b"HELLO", b"PING"):
                return None
            sent[kind] += 1
            # Otherwise nothing would be asked that depends on an answer.
            return next(turns) if random.random() < 0.5 else None

        lying.lie = lie
        asked = "/v1/jobs/queues?target=bad&detail=true"
        statuses: Counter[int] = Counter()
        polls = partial(value, "bullmq_exporter_poll_duration_seconds_count", target="good")
        before, added = polls(), 0
        with good.client() as client:

            def harms_nobody() -> bool:
                nonlocal added
                added += 1
                client.xadd("bull:mail:events", {"event": "added", "jobId": "0", "name": "new"})
                for path in (asked, *PATHS):
                    answer = exporter.api.get(f"{path}")
                    statuses[answer.status] += 1
                    assert answer.status in (200, 404, 503), path
                assert value("bullmq_up", target="good") == 1
                assert value("bullmq_job_count", target="good", queue="mail", state="failed") == 1
                enough = all(sent[kind] > 3 for kind in (b"SCAN", b"XREAD", b"page.lua"))
                return enough and polls() > before + 10 and added >= 20

            eventually(harms_nobody)
        truth(lying)
        for name in targets:
            count = partial(value, "bullmq_job_count", target=name, queue="mail", state="failed")
            eventually(lambda: count() == 1)  # noqa: B023
        new = partial(value, "bullmq_job_added_total", target="good", queue="mail", name="new")
        eventually(lambda: new() == added)
        eventually(lambda: value("bullmq_exporter_events_followed", target="bad"))
        assert exporter.api.get(asked).status == 200
        assert statuses[503] and "Traceback" not in exporter.log
        assert value("bullmq_exporter_poll_errors_total", target="good") == 0
        assert exporter.terminate() == 0
