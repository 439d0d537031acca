"""Whatever stands under BullMQ's keys: nothing fails of it, and no other queue is harmed.

Most examples run in this process, with a watcher, a follower and the API's own application that
read a real Valkey; a few in a real exporter, where all of it happens at once.
`FUZZ_TIMES=100 pytest tests/integration/test_fuzz.py --timeout=0` tries a hundred times as many.
"""

from __future__ import annotations

import asyncio
import glob
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import quote

import orjson
import pytest
import redis
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_format,
)
from prometheus_client.parser import text_string_to_metric_families as text_format
from yarl import URL

from exporter.collect.target import Target
from exporter.collect.watcher import Watcher, watched_queues
from exporter.concurrency.request_priority import RequestPriority
from exporter.metrics.exposition import OPENMETRICS, TEXT, Exposition
from exporter.metrics.health import Health
from exporter.queues.failure_evidence import FailedAttempt, FailureEvidence, SeenFailures
from exporter.queues.failure_reasons import fold
from exporter.queues.failures import fold_reason, innermost_frame
from exporter.queues.job_facts import NO_JOB
from exporter.queues.json_values import parse_json
from exporter.queues.queue import Queue, State
from exporter.queues.snapshot import Outcome
from exporter.queues.tallies import Count, Tallies
from exporter.queues.text import label_text, text
from exporter.queues.watched_queues import WatchedQueues
from exporter.settings import ApiSettings, EventsSettings, RedisSettings, Settings
from exporter.state.state_file import STALLED, StateFile
from exporter.stores import open_store
from exporter.stores.bullmq.bull_queues import BullQueues
from exporter.stores.bullmq.events import check_rounds
from exporter.stores.bullmq.events import follower as following
from exporter.stores.bullmq.events.follower import Follower
from exporter.stores.bullmq.job_detail import MORE_FIELDS
from exporter.stores.bullmq.jobs import FIELDS, job_of
from exporter.stores.bullmq.keys import events_key, heartbeat_key
from exporter.stores.bullmq.request_reader import RequestReader
from exporter.stores.bullmq.waiting import WaitingJobs
from exporter.stores.events import stale_jobs
from exporter.stores.redis.client import RedisReader
from exporter.stores.request_reads import read_limits
from exporter.web import serializers
from exporter.web.api import api_app
from exporter.web.jobs_api import JobsApi
from exporter.web.redaction import VALUE_KINDS, Redaction
from tests.support.exporters import API_KEY, Exporter, StartExporter, spawn_exporter
from tests.support.judge import Page, Series, judge, serving
from tests.support.label_judges import PROMETHEUS
from tests.support.programs import Spawn
from tests.support.servers import Server, running
from tests.support.strategies import (
    ANYTHING,
    DOCUMENT,
    HASH,
    JOB,
    KEYS,
    NOW,
    NUMBERS,
    RAW,
    USUAL,
    deep_json,
    examples,
    mostly,
    seldom,
)
from tests.support.waiting import eventually

# Of an example that fails, not of those that are tried.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

PREFIXES = ("bull", "bull:eu", '{b*l}? [x^]\\"é')
PREFIX_SETTING = tuple(map(glob.escape, PREFIXES))  # each stands for itself
REDACTIONS = (Redaction(), Redaction(("a", "*token*", "pass*"), tuple(VALUE_KINDS)))
SOUND = Queue.named("bull", "sound")


# What may stand there: mostly nearly right.


META = st.fixed_dictionaries(
    {},
    optional={
        b"paused": st.sampled_from([b"1", b"0", b"", b"\xff"]),
        b"version": st.sampled_from([b"bullmq:5.56.3", b"", b'\xff"\\\n', b"v" * 3000]),
        **dict.fromkeys((b"opts.maxLenEvents", b"concurrency", b"max", b"duration"), NUMBERS),
    },
)
IDS = mostly(
    st.sampled_from([b"1", b"2", b"3"]),
    st.sampled_from(
        [
            *(
                b"",
                b"0:1795482933152",
                b"0:",
                b"meta",
                b"wait",
                b"repeat:daily:%d" % NOW,
                b"1:logs",
            ),
            *(b"\xff", rb"\xff", b":", b"a/b", b"..", b"%2F", b'"\n\\', b"i" * 130, b"\x00"),
            "😀".encode(),
        ]
    ),
    RAW,
)
SCHEDULERS = st.sampled_from([b"daily", b"\xff", rb"\xff", b"a:b:::0 1 * * *", b"a:c::", b"", b":"])
SCORES = mostly(
    st.sampled_from([0.0, 1.0, NOW, NOW + 0.5, NOW - 10**6, NOW * 4096.0, (NOW + 10**9) * 4096.0]),
    st.sampled_from(
        [
            *(-1.0, 0.5, -0.0, 2.0**32, 2.0**53, 2.0**63, 2.0**64, 1e300, 1.7e308, 5e-324),
            *(float("inf"), float("-inf"), -1e308, -NOW * 4096.0),
        ]
    ),
    st.floats(allow_nan=False),
)
EVENTS = st.sampled_from(
    [
        *(b"added", b"waiting", b"active", b"completed", b"failed", b"delayed", b"stalled"),
        *(
            b"retries-exhausted",
            b"waiting-children",
            b"removed",
            b"cleaned",
            b"drained",
            b"progress",
        ),
        *(b"", b"\xff", b"nothing of BullMQ's", b"paused"),
    ]
)


@st.composite
def entry(draw: st.DrawFn) -> list[bytes]:
    """The fields and values of an event; XADD takes no odd number of them."""
    if not draw(st.integers(0, 9)):
        pairs = st.lists(st.tuples(RAW | EVENTS, RAW), min_size=1, max_size=4)
        return [part for pair in draw(pairs) for part in pair]
    fields = [b"event", draw(EVENTS), draw(seldom(RAW, st.just(b"jobId"))), draw(IDS)]
    if draw(st.booleans()):
        value = st.sampled_from([b"active", b"failed", b"waiting", b"wait"]) | USUAL[b"name"]
        fields += [
            draw(st.sampled_from([b"prev", b"name", b"returnvalue"])),
            draw(value | ANYTHING),
        ]
    return fields if draw(st.integers(0, 4)) else [*fields, draw(RAW), draw(RAW)]


KINDS: dict[str, Callable[[st.SearchStrategy[Any]], st.SearchStrategy[Any]]] = {
    "string": lambda _: ANYTHING,
    "list": lambda members: st.lists(members, min_size=1, max_size=8),
    "set": lambda members: st.lists(members, min_size=1, max_size=8),
    "hash": lambda _: HASH,
    "zset": lambda members: st.dictionaries(members, SCORES, min_size=1, max_size=8),
    "stream": lambda _: st.lists(entry(), min_size=1, max_size=6),
}
LISTS = (b"wait", b"active", b"paused")
SETS = (b"delayed", b"prioritized", b"waiting-children", b"completed", b"failed")
PARTS = {
    b":logs": "list",
    b":lock": "string",
    b":dependencies": "set",
    b":processed": "hash",
    b":failed": "hash",
    b":unsuccessful": "zset",
}


class Value(NamedTuple):
    """What one key holds."""

    kind: str
    content: Any


@st.composite
def value_of(
    draw: st.DrawFn,
    kind: str,
    members: st.SearchStrategy[Any] = IDS,
    usual: st.SearchStrategy[Any] | None = None,
) -> Value:
    """A value of this kind, or once in four times of any other one."""
    taken = draw(mostly(st.just(kind), st.sampled_from(sorted(KINDS))))
    if usual is not None and taken == kind:
        return Value(kind, draw(mostly(usual, KINDS[kind](members))))
    return Value(taken, draw(KINDS[taken](members)))


@dataclass
class Filled:
    """A queue and all that stands under its keys."""

    prefix: str
    name: bytes
    keys: dict[bytes, Value] = field(default_factory=dict)  # by suffix
    heartbeat: Value | None = None

    @property
    def queue(self) -> Queue:
        return Queue.named(self.prefix, self.name)

    @property
    def all_keys(self) -> Iterator[tuple[bytes, Value]]:
        for suffix, value in self.keys.items():
            yield self.queue.base + suffix, value
        if self.heartbeat is not None:
            yield heartbeat_key(self.queue), self.heartbeat

    @property
    def job_ids(self) -> set[bytes]:
        """Of its lists, and a few others."""
        ids = {b"1", b"2", b"meta", b"events"}
        for suffix in (*LISTS, *SETS):
            value = self.keys.get(suffix)
            if value is not None and value.kind in ("list", "set", "zset"):
                ids.update(list(value.content)[:2])
        return ids


NAMES = mostly(
    st.sampled_from([b"q", b"ingestion"]),
    st.sampled_from(
        [
            *(
                b"\xff",
                rb"\xff",
                b"sla/sh",
                b"per%2Fcent?#&",
                b'"\\\n\r',
                b"..",
                b"*",
                b"\x00",
                b" ",
            ),
            *(b"sound ", b"n" * 2000, b"\xe9" * 500, "é\u2028😀".encode(), b'x",queue="sound'),
        ]
    ),
    st.binary(min_size=1, max_size=12).filter(lambda name: b":" not in name),
)


@st.composite
def filled(draw: st.DrawFn) -> Filled:
    """A queue whose every key may hold whatever Redis can hold."""
    queue = Filled(draw(mostly(st.just("bull"), st.sampled_from(PREFIXES))), draw(NAMES))
    keys = queue.keys
    keys[b"meta"] = draw(
        value_of("hash", usual=META.map(lambda fields: fields or {b"version": b""}))
    )
    for suffixes, kind in ((LISTS, "list"), (SETS, "zset")):
        for suffix in suffixes:
            if draw(st.integers(0, 2)):
                keys[suffix] = draw(value_of(kind))
    if draw(st.booleans()):
        keys[b"limiter"] = draw(value_of("string", usual=NUMBERS))
    if draw(st.booleans()):
        keys[b"repeat"] = draw(value_of("zset", SCHEDULERS | IDS))
        for scheduler in draw(st.lists(SCHEDULERS, max_size=3)):
            keys[b"repeat:" + scheduler] = draw(value_of("hash"))
    if draw(st.booleans()):
        keys[b"events"] = draw(value_of("stream"))
    for job_id in draw(st.lists(IDS, max_size=4)):
        keys.setdefault(job_id, draw(value_of("hash", usual=JOB)))
        for part in draw(st.lists(st.sampled_from(sorted(PARTS)), max_size=2)):
            members = st.one_of(ANYTHING, KEYS) if part != b":lock" else IDS
            keys.setdefault(job_id + part, draw(value_of(PARTS[part], members)))
    if draw(st.booleans()):
        queue.heartbeat = draw(value_of("string", usual=NUMBERS))
    return queue


# How it is put there, next to a queue that is sound.


def put(client: redis.Redis, key: bytes, value: Value) -> None:
    content = value.content
    match value.kind:
        case "string":
            # A limiter without an end would not be looked at.
            client.set(key, content, px=900_000 if key.endswith(b":limiter") else None)
        case "list":
            client.rpush(key, *content)
        case "set":
            client.sadd(key, *content)
        case "hash":
            client.hset(key, mapping=content)
        case "zset":
            client.zadd(key, content)
        case "stream":
            for fields in content:
                client.execute_command("XADD", key, "*", *fields)


def put_all(client: redis.Redis, queues: Iterable[Filled]) -> None:
    """The queues' keys in place of those that were there, but for those of the queue `sound`."""
    kept = (SOUND.base, heartbeat_key(SOUND))
    pipeline = client.pipeline(transaction=False)
    if old := [key for key in client.keys("*") if not key.startswith(kept)]:
        pipeline.delete(*old)
    put_there: set[bytes] = set()
    for queue in queues:
        for key, value in queue.all_keys:
            if key not in put_there and not key.startswith(kept):
                put(pipeline, key, value)
            put_there.add(key)
    pipeline.execute()


def put_sound(client: redis.Redis) -> None:
    base = SOUND.base.decode()
    client.hset(f"{base}meta", mapping={"version": "bullmq:5.56.3", "opts.maxLenEvents": "10000"})
    job = {"name": "import", "data": "{}", "timestamp": NOW - 10**9, "processedOn": NOW - 10**8}
    options = json.dumps({"removeOnFail": 5000, "removeOnComplete": {"count": 1000}})
    for job_id in range(1, 16):
        client.hset(f"{base}{job_id}", mapping=job | {"opts": options})
    client.lpush(f"{base}wait", 1, 2, 3)
    client.lpush(f"{base}active", 4)
    client.set(f"{base}4:lock", "token")
    client.zadd(f"{base}delayed", {"5": (NOW + 1000) * 4096, "6": (NOW + 2000) * 4096})
    client.zadd(f"{base}prioritized", {"7": 2**32 + 1})
    client.zadd(f"{base}waiting-children", {"8": NOW})
    client.zadd(f"{base}completed", {"9": NOW, "10": NOW})
    client.zadd(f"{base}failed", {str(job_id): NOW for job_id in range(11, 16)})
    client.zadd(f"{base}repeat", {"daily": NOW + 10**10, "hourly": NOW + 10**9})
    client.set(heartbeat_key(SOUND), NOW)


SOUND_COUNTS = dict(zip(State, (1, 2, 5, 2, 3, 0, 1, 1), strict=True))
Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def samples_of(page: str, parse: Callable[[str], Iterable[Any]]) -> Samples:
    """Each sample of a page, by name and labels; none may be there twice."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in parse(page):
        for sample in family.samples:
            series = (sample.name, frozenset(sample.labels.items()))
            assert series not in found, f"twice: {series}"
            found[series] = sample.value
    return found


def of_sound(page: str, parse: Callable[[str], Iterable[Any]] = text_format) -> Samples:
    """What a poll reports about the queue `sound`."""
    samples = samples_of(page, parse)
    assert samples["bullmq_up", frozenset()] == 1
    labels = frozenset({("prefix", SOUND.prefix), ("queue", SOUND.name)})
    for state, number in SOUND_COUNTS.items():
        assert samples["bullmq_job_count", labels | {("state", state)}] == number
    return {
        (name, reported): value
        for (name, reported), value in samples.items()
        if labels <= reported and ("name" not in dict(reported)) and "missed" not in name
    }


class Api:
    """Answers of the Jobs API, each held against the OpenAPI document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._validators: dict[tuple[str, int], Draft202012Validator] = {}

    def _validator(self, template: str, status: int) -> Draft202012Validator:
        known = self._validators.get((template, status))
        if known is None:
            components = self._document["components"]
            response = self._document["paths"][template]["get"]["responses"][str(status)]
            if "$ref" in response:
                response = components["responses"][response["$ref"].rpartition("/")[2]]
            schema = response["content"]["application/json"]["schema"]
            known = Draft202012Validator({"components": components} | schema)
            self._validators[template, status] = known
        return known

    def check(self, template: str, path: str, status: int, body: bytes) -> Any:
        assert status in (200, 400, 404), f"{path}: {status} {body[:500]!r}"
        answer = json.loads(body)
        self._validator(template, status).validate(answer)
        return answer


LIST = "/v1/jobs/queues"
ONE = f"{LIST}/{{queueName}}"
VARIANTS = (
    *(
        "text=a",
        "text=%EF%BF%BD&order=desc",
        "brief=true&order=desc",
        "limit=1&page=2&detail=true",
        "name=import",
    ),
    *("window=1h", "fingerprint=0&limit=1", "text=%5Cxff&brief=true&page=2&limit=2"),
)


def paths_of(
    queue: Filled, variants: Iterable[str], statuses: Iterable[State] = State
) -> Iterator[tuple[str, str]]:
    """What the API may be asked for of a queue: templates and paths."""
    name = quote(queue.queue.name, safe="")
    prefix = f"prefix={quote(queue.prefix, safe='')}"
    path = f"{LIST}/{name}"
    if len(path) > 7000:  # longer request lines are refused by any server
        return
    for status, variant in zip(statuses, variants, strict=False):
        yield ONE, f"{path}?{prefix}&limit=1000&status={status}"
        yield ONE, f"{path}?{prefix}&status={status}&{variant}"
    yield f"{ONE}/schedulers", f"{path}/schedulers?{prefix}"
    yield f"{ONE}/failures", f"{path}/failures?{prefix}"
    yield f"{ONE}/failures", f"{path}/failures?{prefix}&window=9999w&limit=1"
    for raw_id in queue.job_ids:
        job_id = quote(text(raw_id), safe="")
        if job_id and len(path) + len(job_id) < 7000:
            yield f"{ONE}/jobs/{{jobId}}", f"{path}/jobs/{job_id}?{prefix}&logsPage=1"
    key = quote(text(queue.queue.job_key(b"1")), safe="")
    yield "/v1/jobs/keys/{jobKey}", f"/v1/jobs/keys/{key}"


class Faults(logging.Handler):
    """Keeps the log's lines that report a fault of ours."""

    # Polls, the follower and the API catch what they did not foresee: only the log shows it.
    SAYINGS = (
        *("a poll failed", "a request failed", "events passed over", "events cannot be followed"),
        *("queues cannot be searched for", "the state file", "requests cannot be answered"),
    )

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if str(getattr(record, "reason", "")).endswith(STALLED):
            return  # the disk of a busy machine
        if record.exc_info or record.levelno > logging.WARNING or message.startswith(self.SAYINGS):
            self.lines.append(self.format(record) + str(record.__dict__.get("reason", "")))


class Inside:
    """The parts of an exporter in this process, without its pauses."""

    def __init__(self, server: Server, directory: Path, runner: asyncio.Runner) -> None:
        self.server = server
        self.client = server.client()
        self.faults = Faults()
        self.state_file = directory / "state"
        self.run = runner.run
        self._watched = WatchedQueues()  # those of the last poll
        self.settings = Settings(
            prefix=PREFIX_SETTING, redis=RedisSettings(host="127.0.0.1", port=server.port)
        )

    name, timeout = None, 2.0

    def seen_failures(self, _: Queue) -> SeenFailures:
        """A job that was seen to fail, as odd as events and hashes can be."""
        evidence = FailureEvidence(0)
        for number, raw_id in enumerate((b"\xff\x00", b"x" * 512, b"1")):
            failed = FailedAttempt(
                raw_id, None, NOW + number, None, number > 0, fold("odd 1"), b"\xff password: x"
            )
            evidence.note(b"q", failed, NOW)
            evidence.add_details(
                b"q", failed, name="\x00", attempts=-1, trace=b"\xfe" * number, source="\x00"
            )
        return evidence.of_queue(b"q", NOW)

    @property
    def queues(self) -> tuple[Queue, ...] | None:
        return self._watched.queues

    async def open(self) -> None:
        self._store = open_store(self.settings, watched_queues(self.settings), RequestPriority())
        api = ApiSettings(key=cast(Any, API_KEY), rate_limit=0)
        self.reader = RequestReader(
            self.settings,
            self._watched,
            WaitingJobs(),
            read_limits(api),
            BullQueues(),
        )
        self._health = Health()
        self._clients = []
        for redaction in REDACTIONS:
            jobs = JobsApi([cast(Target, self)], redaction, search_seconds=5)
            server = TestServer(api_app(jobs, api, self._health, RequestPriority()))
            client = TestClient(server, headers={"X-API-KEY": API_KEY})
            await client.start_server()
            self._clients.append(client)
        self.api = Api(json.loads((await self._get(0, "/openapi.json"))[1]))
        put_sound(self.client)
        self.sound = of_sound(await self.page(await self.poll(), None))

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
        await self.reader.close()
        await self._store.close()
        self.client.close()

    async def poll(self) -> Outcome:
        """The first poll of a new watcher, which finds the queues."""

        async def publish(_: Outcome) -> None: ...

        watched = watched_queues(self.settings)
        watcher = Watcher(self._store, watched, self.settings, publish)
        outcome = await watcher.poll()
        assert outcome.snapshot is not None, outcome.error
        self._watched.set(watched.queues or ())
        return outcome

    async def page(self, outcome: Outcome, tallies: Tallies | None, accept: str = "") -> str:
        exposition = Exposition(
            Health(), with_prefix=True, scrape_interval=60, request_priority=RequestPriority()
        )
        await exposition.publish(None, outcome, tallies)
        # The second time counters are no longer 0.
        for _ in range(2):
            _, page = await exposition.page(accept)
            await exposition.publish(None, outcome, tallies)
        return b"".join(page.text(1000)).decode()

    async def assert_pages(self, outcome: Outcome, tallies: Tallies | None = None) -> None:
        """Both forms can be read, and report about `sound` what they always report."""
        assert of_sound(await self.page(outcome, tallies)) == self.sound
        page = await self.page(outcome, tallies, "application/openmetrics-text")
        assert of_sound(page, openmetrics_format) == self.sound

    async def _get(self, which: int, path: str) -> tuple[int, bytes]:
        async with self._clients[which].get(URL(path, encoded=True)) as response:
            return response.status, await response.read()

    async def assert_answers(
        self,
        queue: Filled,
        variants: Iterable[str],
        statuses: Iterable[State] = State,
        *,
        redacted: bool,
    ) -> None:
        status, body = await self._get(redacted, f"{LIST}?detail=true")
        listed = self.api.check(LIST, LIST, status, body)["queues"]
        [sound] = [each for each in listed if (each["prefix"], each["name"]) == ("bull", "sound")]
        assert sound["counts"] == {str(state): number for state, number in SOUND_COUNTS.items()}
        for template, path in paths_of(queue, variants, statuses):
            status, body = await self._get(redacted, path)
            self.api.check(template, path, status, body)

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[Follower]:
        """A follower at work; at its end it saves its state."""
        reader = RedisReader(self.settings.redis, connections=1)
        events = EventsSettings(state_file=self.state_file, max_names=5)
        follower = Follower(reader, events, lambda: self.queues, redis_timeout=3)
        task = asyncio.create_task(follower.run())
        try:
            yield follower
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await reader.close()

    def assert_no_faults(self) -> None:
        assert not self.faults.lines, self.faults.lines


@pytest.fixture(scope="module")
def quiet_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Valkey that writes nothing to the disk: it is given megabytes."""
    with running("valkey", tmp_path_factory.mktemp("valkey"), "--appendonly", "no") as server:
        yield server


@pytest.fixture(scope="module")
def inside(quiet_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        patch.setattr(check_rounds, "CHECK_INTERVAL_SECONDS", 0.0)
        patch.setattr(check_rounds, "CHECK_ALL_INTERVAL_SECONDS", 0.0)
        patch.setattr(stale_jobs, "EXISTS_INTERVAL_SECONDS", 0.0)
        patch.setattr(following, "BLOCK", 0.002)
        patch.setattr(following, "PAUSE", 0.0)
        # Each time instead of once a second.
        patch.setattr(StateFile, "due", True)
        patch.setattr(os, "fsync", lambda _: None)
        with quiet_server.client() as client:
            client.flushall()
        parts = Inside(quiet_server, tmp_path_factory.mktemp("fuzz"), runner)
        logging.getLogger().addHandler(parts.faults)
        runner.run(parts.open())
        yield parts
        runner.run(parts.close())
        logging.getLogger().removeHandler(parts.faults)


@examples(80)
@given(queues=st.lists(filled(), min_size=1, max_size=2))
def test_a_poll_and_a_scrape_report_of_the_other_queues_what_they_always_report(
    inside: Inside, queues: list[Filled]
) -> None:
    put_all(inside.client, queues)

    async def poll_and_scrape() -> None:
        outcome = await inside.poll()
        assert {each.queue for each in queues} <= {*(inside.queues or ()), *twins(queues)}
        await inside.assert_pages(outcome)

    inside.run(poll_and_scrape())
    inside.assert_no_faults()


def twins(queues: Iterable[Filled]) -> set[Queue]:
    """Those whose names show alike: one of two gives way."""
    shown = [(each.prefix, each.queue.name) for each in queues]
    return {e.queue for e in queues if shown.count((e.prefix, e.queue.name)) > 1}


@examples(40)
@given(
    queue=filled(),
    variants=st.lists(st.sampled_from(VARIANTS), min_size=8, max_size=8),
    redacted=st.booleans(),
)
def test_every_answer_of_the_api_is_what_its_document_says(
    inside: Inside, queue: Filled, variants: list[str], redacted: bool
) -> None:
    put_all(inside.client, [queue])

    async def ask() -> None:
        await inside.poll()
        await inside.assert_answers(queue, variants, redacted=redacted)

    inside.run(ask())
    inside.assert_no_faults()


@examples(80)
@given(
    fields=JOB,
    status=st.sampled_from(State),
    variant=st.sampled_from(VARIANTS),
    redacted=st.booleans(),
)
def test_a_job_is_shown_whatever_its_fields_hold(
    inside: Inside, fields: dict[bytes, bytes], status: State, variant: str, redacted: bool
) -> None:
    queue = Filled("bull", b"q", {b"meta": Value("hash", {b"version": b"bullmq:5.56.3"})})
    queue.keys[b"1"] = Value("hash", fields)
    for suffix in LISTS:
        queue.keys[suffix] = Value("list", [b"1"])
    for suffix in SETS:
        queue.keys[suffix] = Value("zset", {b"1": NOW})
    put_all(inside.client, [queue])

    async def ask() -> None:
        await inside.assert_pages(await inside.poll())
        await inside.assert_answers(queue, [variant], [status], redacted=redacted)

    inside.run(ask())
    inside.assert_no_faults()


@examples(600)
@given(fields=JOB, source=deep_json() | DOCUMENT)
def test_what_is_read_of_a_job_can_be_written(fields: dict[bytes, bytes], source: bytes) -> None:
    """Without a server: what a reading makes of a field, an answer can hold."""
    wanted: dict[str, bytes | None] = {
        name: fields.get(name.encode()) for name in (*FIELDS, *MORE_FIELDS)
    }
    began = time.thread_time()
    job_fields = wanted | {"data": source}
    job = job_of(b"1", State.FAILED, [job_fields[field] for field in FIELDS])
    reason = fold_reason(job)
    innermost_frame(job.stacktrace)
    # Not a measurement: what backtracks takes seconds or minutes, all else milliseconds.
    assert time.thread_time() - began < 2, "others wait meanwhile"
    assert len(reason.fingerprint) == 12
    for redaction in REDACTIONS:
        shown_job = serializers.job(asyncio.run(redaction.job(job)))
        read = {
            name: asyncio.run(redaction.value(parse_json(wanted[name])))
            for name in ("opts", "progress")
        }
        # As deep as an answer has them.
        json.loads(orjson.dumps({"name": "q", "jobs": [shown_job | read]}))


# What is done to a stream while it is followed.

# The sum of some durations is more than 64 bits then.
LATEST = 2**64 - 1
ENTRY_IDS = st.sampled_from([b"*", b"1-0", b"%d-5" % (NOW + 10**12), b"%d-*" % LATEST])
STEPS = st.one_of(
    st.tuples(st.just("add"), mostly(st.just(b"*"), ENTRY_IDS), st.lists(entry(), max_size=5)),
    st.tuples(st.just("add"), st.just(b"*"), st.lists(entry(), min_size=1, max_size=30)),
    st.tuples(st.just("trim"), st.integers(0, 5)),
    st.tuples(st.just("delete")),
    st.tuples(st.just("replace"), value_of("stream")),
    st.tuples(st.just("set id"), st.sampled_from([0, 5, 2**53, min(LATEST, 2**63 - 1)])),
    st.tuples(st.just("wait")),
)


def take(client: redis.Redis, key: bytes, step: tuple[Any, ...]) -> None:
    """What Redis refuses is no step."""
    with suppress(redis.ResponseError):
        match step:
            case ("add", entry_id, entries):
                for fields in entries:
                    client.execute_command("XADD", key, entry_id, *fields)
            case ("trim", length):
                client.execute_command("XTRIM", key, "MAXLEN", length)
            case ("delete",):
                client.delete(key)
            case ("replace", value):
                client.delete(key)
                put(client, key, value)
            case ("set id", added):
                info = client.execute_command("XINFO", "STREAM", key)
                last = dict(zip(info[::2], info[1::2], strict=True))[b"last-generated-id"]
                counted = ("ENTRIESADDED", added, "MAXDELETEDID", "0-0")
                client.execute_command("XSETID", key, last, *counted)


@examples(80)
@given(
    queue=filled(),
    steps=st.lists(STEPS, min_size=1, max_size=10),
    jobs=st.dictionaries(IDS, JOB, max_size=3),
)
def test_a_follower_goes_on_whatever_it_reads(
    inside: Inside,
    queue: Filled,
    steps: list[tuple[Any, ...]],
    jobs: dict[bytes, dict[bytes, bytes]],
) -> None:
    queue.keys = {job_id: Value("hash", fields) for job_id, fields in jobs.items()} | queue.keys
    inside.client.delete(events_key(SOUND))
    put_all(inside.client, [queue])
    inside.run(follow(inside, queue.queue, steps))
    inside.assert_no_faults()


async def follow(inside: Inside, queue: Queue, steps: Iterable[tuple[Any, ...]]) -> None:
    outcome = await inside.poll()
    inside.state_file.unlink(missing_ok=True)
    added = 0
    async with inside.followed() as follower:
        await until(follower, lambda _: True)
        for step in steps:
            if step == ("wait",):
                added += 1
                await sound_event(inside, follower, added)
            else:
                take(inside.client, events_key(queue), step)
        for _ in range(2):
            added += 1
            tallies = await sound_event(inside, follower, added)
        assert tallies.queues[SOUND].missed == 0
        await inside.assert_pages(outcome, tallies)
    inside.assert_no_faults()
    # And begins anew where it ended.
    async with inside.followed() as follower:
        again = await sound_event(inside, follower, added + 1)
        for name, tally in tallies.queues[queue].by_name.items():
            kept = again.queues[queue].by_name[name].values
            assert sum(kept) >= 0.999 * sum(
                tally.values
            )  # sums of ages of the world may be rounded


async def sound_event(inside: Inside, follower: Follower, number: int) -> Tallies:
    """Has one more job added to the queue `sound`; what was counted when that was."""
    fields = ("event", "added", "jobId", str(number), "name", "import")
    inside.client.execute_command("XADD", events_key(SOUND), "*", *fields)
    return await until(
        follower,
        lambda tallies: tallies.queues[SOUND].by_name["import"].values[Count.ADDED] == number,
    )


async def until(follower: Follower, check: Callable[[Tallies], bool]) -> Tallies:
    tallies = None
    for _ in range(12_000):
        tallies = await follower.tallies()
        with suppress(KeyError):
            if tallies is not None and check(tallies):
                return tallies
        await asyncio.sleep(0.005)
    pytest.fail(f"not so within a minute: {tallies}")


# Real Prometheus as the judge of what is reported.

# What formats and their readers take for something else, and what is no text at all.
PIECES = (
    *(b"\0", b'"', b"\\", b"\n", b"\r", b"{", b"}", b" ", b"=", b",", b"#", b" # {", b"# EOF\n"),
    *(b"\xff", b"\xed\xa0\xbd", b"\x1b", b"\x7f", b"\x85", b"a", rb"\xff", b"\xef\xbb\xbf"),
    *(each.encode() for each in ("\x85", "\u2028", "\u202e", "é", "\N{GRINNING FACE}", "\ufffe")),
)
BYTES = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map(b"".join) | st.binary(
    min_size=1, max_size=100
)
NAMED = BYTES.filter(lambda name: b":" not in name)


@dataclass
class Labelled:
    """A queue with bytes of any kind wherever a label or an exemplar comes from."""

    prefix: str
    name: bytes
    version: bytes
    schedulers: dict[bytes, tuple[bytes, bytes]]  # by key: pattern and time zone
    jobs: dict[bytes, bytes]  # by id: name

    def put(self, client: redis.Redis) -> None:
        base = Queue.named(self.prefix, self.name).base
        with client.pipeline(transaction=False) as pipeline:
            pipeline.hset(base + b"meta", mapping={"version": self.version, "opts.maxLenEvents": 9})
            for key, (pattern, tz) in self.schedulers.items():
                pipeline.zadd(base + b"repeat", {key: NOW})
                fields = {"name": key, "pattern": pattern, "tz": tz, "every": "1000"}
                pipeline.hset(base + b"repeat:" + key, mapping=fields)
            pipeline.execute()

    def work(self, client: redis.Redis) -> None:
        """Write the events of its jobs: each is in an exemplar of its own."""
        stream = events_key(Queue.named(self.prefix, self.name))
        for at, (job_id, name) in enumerate(self.jobs.items()):
            added, waited = NOW + 10**6 * at, 100 * 4**at
            for ms, event in (
                (0, "added"),
                (0, "waiting"),
                (waited, "active"),
                (9 * waited, "failed"),
            ):
                fields = (b"event", event, b"jobId", job_id, b"name", name)
                client.execute_command("XADD", stream, f"{added + ms}-*", *fields)


LABELLED = st.builds(
    Labelled,
    prefix=st.sampled_from(PREFIXES),
    name=NAMED,
    version=BYTES,
    schedulers=st.dictionaries(BYTES, st.tuples(BYTES, BYTES), max_size=2),
    jobs=st.dictionaries(BYTES, BYTES, min_size=1, max_size=3),
)


@pytest.mark.takes(seconds=40)
def test_prometheus_2_and_3_take_every_page_whatever_redis_holds(
    inside: Inside, spawn: Spawn, tmp_path: Path
) -> None:
    pages: dict[str, Page] = {}
    reported: dict[str, set[Series]] = {}
    exemplars = 0

    @examples(40)
    @example(Labelled("bull", b"q", b"v", {}, {b"<a@b>\0": b"n", b'"': b"n", b"1": b"n"}))
    @example(Labelled("bull", b"\0", b"\0", {b"\0": (b"\0", b"\0")}, {b"1": b"\0", b"2": b'"'}))
    @given(queue=LABELLED)
    def collect(queue: Labelled) -> None:
        nonlocal exemplars
        for content_type, text_ in inside.run(pages_of(inside, queue)).items():
            path = f"/{len(pages)}"
            parse = openmetrics_format if content_type == OPENMETRICS else text_format
            samples = [sample for family in parse(text_) for sample in family.samples]
            exemplars += sum(each.exemplar is not None for each in samples)
            assert {label_text(name) for name in queue.jobs.values()} <= {
                each.labels["name"] for each in samples if each.name == JOBS
            }
            pages[path] = Page(content_type, text_.encode())
            reported[path] = {
                # An empty label is none to Prometheus.
                frozenset({("__name__", each.name), *((k, v) for k, v in each.labels.items() if v)})
                for each in samples
                if each.name in JUDGED
            }

    collect()
    inside.assert_no_faults()
    assert exemplars > 20, "without any this would show little"
    query = f'{{__name__=~"{"|".join(JUDGED)}"}}'
    with serving(pages) as address:
        for version, binary in PROMETHEUS.items():
            (directory := tmp_path / version).mkdir()
            verdicts = judge(
                pages, address, binary=binary(), spawn=spawn, directory=directory, query=query
            )
            for path, verdict in verdicts.items():
                assert not verdict.error, (version, pages[path])
                assert verdict.series == reported[path]
                lines = pages[path].body.decode().split("\n")
                assert verdict.samples == sum(bool(line) and line[0] != "#" for line in lines)


JOBS = "bullmq_job_failed_total"
JUDGED = (JOBS, "bullmq_queue_info", "bullmq_scheduler_info", "bullmq_scheduler_interval_seconds")


async def pages_of(inside: Inside, queue: Labelled) -> dict[str, str]:
    """The page in both forms, by content type, after the jobs of the queue have failed."""
    put_all(inside.client, [])
    inside.client.delete(events_key(SOUND))
    queue.put(inside.client)
    inside.state_file.unlink(missing_ok=True)
    outcome = await inside.poll()
    async with inside.followed() as follower:
        await until(follower, lambda _: True)
        queue.work(inside.client)
        wanted = Queue.named(queue.prefix, queue.name)
        tallies = await until(
            follower,
            lambda tallies: (
                len(queue.jobs)
                == sum(
                    each.values[Count.FAILED] for each in tallies.queues[wanted].by_name.values()
                )
            ),
        )
    return {form: await inside.page(outcome, tallies, form) for form in (TEXT, OPENMETRICS)}


# All of it at once.


@pytest.fixture(scope="module")
def exporter(quiet_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    log = tmp_path_factory.mktemp("exporter") / "log"
    with quiet_server.client() as client:
        client.flushall()
        put_sound(client)
    quick = {
        "EXPORTER_POLL_INTERVAL": "0.1",
        "EXPORTER_DISCOVERY_INTERVAL": "0.1",
        "EXPORTER_WORKERS_INTERVAL": "0.1",
        "EXPORTER_EVENTS_STATE_FILE": str(log.with_name("state")),
    }
    exporter = spawn_exporter(quiet_server.url, log, "--prefix", ",".join(PREFIX_SETTING), **quick)
    exporter.wait_ready()
    yield exporter
    assert exporter.terminate() == 0


@examples(8)
@given(
    queues=st.lists(filled(), min_size=1, max_size=4),
    steps=st.lists(STEPS, max_size=4),
    variants=st.lists(st.sampled_from(VARIANTS), min_size=8, max_size=8),
)
def test_a_real_exporter_goes_on_whatever_it_finds(
    quiet_server: Server,
    exporter: Exporter,
    queues: list[Filled],
    steps: list[tuple[Any, ...]],
    variants: list[str],
) -> None:
    metrics = exporter.metrics
    polls = "bullmq_exporter_poll_duration_seconds_count"

    def page(accept: str = "") -> str:
        return metrics.get("/metrics", Accept=accept).text

    with quiet_server.client() as client:
        put_all(client, [])
        eventually(lambda: metrics.value("bullmq_exporter_queues") == 1)
        # What collectors read is absent where they had too little time, on a busy machine.
        eventually(lambda: metrics.samples("bullmq_queue_missing_jobs"))
        sound = of_sound(page())
        put_all(client, queues)
        first = queues[0]
        eventually(lambda: (metrics.value("bullmq_exporter_queues") or 0) > 1)
        for step in steps:
            take(client, events_key(first.queue), step)
        before = metrics.value(polls) or 0
        eventually(lambda: (metrics.value(polls) or 0) > before + 2)
    eventually(lambda: of_sound(page()) == sound)
    openmetrics = "application/openmetrics-text"
    eventually(lambda: of_sound(page(openmetrics), openmetrics_format) == sound)
    api = Api(exporter.api.get("/openapi.json").json)
    for template, path in [(LIST, f"{LIST}?detail=true"), *paths_of(first, variants)]:
        answer = exporter.api.get(path)
        api.check(template, path, answer.status, answer.body)
    assert metrics.value("bullmq_exporter_poll_errors_total") == 0
    log = exporter.log
    assert not [saying for saying in (*Faults.SAYINGS, "Traceback") if saying in log], log[-5000:]


# What was found so, each alone.


def test_deep_data_with_half_an_emoji_is_no_error_of_the_server(
    server: Server, start_exporter: StartExporter
) -> None:
    """orjson reads deeper than it writes, and half a pair not at all."""
    data = b"[" * 300 + b'"\\ud83d"' + b"]" * 300
    with server.client() as client:
        client.hset("bull:q:meta", "version", "bullmq:5.56.3")
        client.hset("bull:q:1", mapping={"name": "import", "data": data})
        client.zadd("bull:q:failed", {"1": 1})
    exporter = start_exporter(server.url)
    for path in (f"{LIST}/q", f"{LIST}/q?text=a", f"{LIST}/q/jobs/1"):
        assert exporter.api.get(path).status == 200


def test_attempts_beyond_what_can_be_counted_are_none() -> None:
    """Such a number of a job could not be written into the state file."""
    facts = NO_JOB._replace(name=b"import", atm=b"9" * 400)
    assert facts.retries == 0
    assert facts._replace(opts=b'{"attempts": 1e400}').attempts == 0


def test_durations_beyond_64_bits_do_not_end_an_exporter_with_a_state_file(
    server: Server, start_exporter: StartExporter, tmp_path: Path
) -> None:
    """msgpack has no larger integers; `Follower.tallies` raises, and with it the watcher's task."""
    with server.client() as client:
        client.hset("bull:q:meta", "version", "bullmq:5.56.3")
        put_sound(client)
        exporter = start_exporter(server.url, EXPORTER_EVENTS_STATE_FILE=str(tmp_path / "state"))
        read = "bullmq_exporter_events_read_total"
        eventually(lambda: exporter.metrics.value(read) == 0)
        for event, at in (("waiting", 1), ("active", 2**64 - 1)):
            for job_id in (1, 2):
                fields = ("event", event, "jobId", job_id)
                client.execute_command("XADD", "bull:q:events", f"{at}-{job_id}", *fields)
        ended = exporter.process.poll
        eventually(lambda: ended() is not None or exporter.metrics.value(read) == 4)
    assert ended() is None, exporter.log[-300:]


def test_no_value_of_a_queue_makes_every_scrape_long(
    server: Server, start_exporter: StartExporter
) -> None:
    """Of a job's name 200 bytes are reported; of a version and of a scheduler's name all."""
    with server.client() as client:
        client.hset("bull:q:meta", "version", b"v" * 500_000)
        client.zadd("bull:q:repeat", {b"%d" % i + b"s" * 100_000: NOW for i in range(5)})
    assert len(start_exporter(server.url).metrics.get("/metrics").body) < 100_000
