"""From a queue to the reason: failed jobs in groups, the search among jobs, and one job in full."""

from __future__ import annotations

import random
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import UUID

import pytest

from exporter.queues.failures import Groups, fold_reason, innermost_frame
from exporter.queues.jobs import Job, ReadLimits
from exporter.queues.queue import JobKey, Queue, State
from exporter.settings import RedisSettings
from exporter.stores.bullmq import jobs
from exporter.stores.bullmq.jobs import Scan
from exporter.stores.redis.client import RedisReader
from tests.support.bullmq import StartWork
from tests.support.exporters import API_KEY, StartExporter
from tests.support.servers import Server
from tests.support.waiting import eventually

QUEUES = "/v1/jobs/queues"


def failed(reason: str | None, *stacktrace: Any) -> Job:
    return Job(
        id="1",
        raw_id=b"1",
        name="send",
        data={},
        state=State.FAILED,
        failed_reason=reason,
        timestamp=1,
        processed_on=2,
        finished_on=3,
        attempts_made=1,
        stacktrace=list(stacktrace),
        return_value=None,
    )


@pytest.mark.parametrize(
    ("trace", "frame"),
    [
        (
            "Error: x\n    at Imap.login (/app/dist/imap.js:10:5)\n    at next (/app/a.js:1:1)",
            "at Imap.login (imap.js)",
        ),
        ("Error: x\n    at async file:///app/b.mjs:3:7", "at b.mjs"),
        ("Error: x\n    at async Job.run (C:\\app\\job.js:3:7)", "at Job.run (job.js)"),
        (
            "AxiosError: x\n    at settle (/app/node_modules/axios/axios.cjs:1:1)\n"
            "    at process (node:internal/task:9:9)\n    at Gmail.list (/app/gmail.js:2:2)",
            "at Gmail.list (gmail.js)",
        ),
        (
            "Error: connect\n    at TCPConnectWrap.done (node:net:1:1)",
            "at TCPConnectWrap.done (node:net)",
        ),
        ("Error\n    at new Promise (<anonymous>)", "at new Promise (<anonymous>)"),
        (
            'Traceback (most recent call last):\n  File "/a/w.py", line 4, in run\n    go()\n'
            '  File "/a/m.py", line 9, in fetch\n    raise OSError\nOSError',
            "at fetch (m.py)",
        ),
        ("no trace at all", None),
        ({"not": "text"}, None),
    ],
)
def test_the_innermost_frame_is_found(trace: Any, frame: str | None) -> None:
    assert innermost_frame(["Error: first\n    at other (other.js:1:1)", trace]) == frame


async def test_one_reason_is_one_group_wherever_it_was_thrown() -> None:
    async def jobs() -> AsyncIterator[Job]:
        yield failed("x 1", "Error: x 1\n    at b (/v1/b.js:1:1)")
        yield failed("x 22", "Error: x 22\n    at a (/v2/a.js:9:9)")
        yield failed("x 3", "Error: x 3\n    at a (/v1/a.js:1:1)")
        yield failed("x 4")
        yield failed(None)

    groups = Groups()
    assert not await groups.add_failed(jobs())
    found = [(group.reason.text, group.count, group.frame) for group in groups.all()]
    assert found == [("x <*>", 4, "at a (a.js)"), ("", 1, None)]


HOSTILE = (
    *("'", "1", "-", "/a", "a.b", "a-1", "a.1-", ":", "1:", "<a", "@", "a@", "[", "\\", "C:\\"),
    *("\n", "\n ", " at ", "\n    at ", "\n    at x (", '\n  File "', "(a:1", "\n\t"),
)


@pytest.mark.parametrize("part", HOSTILE)
def test_no_reason_and_no_trace_takes_long(part: str) -> None:
    for text in (part * 65_536, "z" + part * 65_536, part * 30_000 + "!"):
        began = time.thread_time()
        fold_reason(failed(text))
        innermost_frame([text])
        # Not a measurement: what backtracks takes seconds or minutes, all else milliseconds.
        assert time.thread_time() - began < 2


def reasons(number: int) -> list[tuple[int, str]]:
    """A fault of 40, and a reason as it would be reported then."""
    chance = random.Random(7)
    made = []
    for _ in range(number):
        fault = min(int(chance.expovariate(0.1)), 39)
        user = f"user{chance.randrange(1000)}@corp.example"
        port = chance.randrange(32_768, 60_999)  # ephemeral: a service's would say which
        address = f"10.0.{chance.randrange(256)}.{chance.randrange(256)}:{port}"
        identity = UUID(int=chance.getrandbits(128))
        word = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz"[fault : fault + 5]
        made.append(
            (
                fault,
                (
                    f"{word}: login of {user} at {address} refused",
                    f"{word}: request {identity} took {chance.randrange(99999)} ms",
                    f"{word}: cannot open '{user} {fault}' (attempt {chance.randrange(9)})",
                    f"Request failed with status code {400 + fault}: {identity}",
                )[fault % 4],
            )
        )
    return made


@pytest.mark.parametrize("version", ["bullmq5", "bullmq6"])
def test_5000_failed_jobs_are_grouped_by_their_40_reasons(
    server: Server, start_exporter: StartExporter, start_work: StartWork, version: str
) -> None:
    given = reasons(5000)
    truth = Counter(fault for fault, _ in given)
    assert len(truth) == 40
    work = start_work(version, server.port)
    work.addJobs(
        "ingestion",
        [
            {
                "name": "throws",
                "data": {"reason": reason, "ingestionSourceId": f"source-{fault}"},
                "opts": {"attempts": 1 + fault % 2},
            }
            for fault, reason in given
        ],
    )
    work.work("ingestion", {"concurrency": 100})
    exporter = start_exporter(server.url, EXPORTER_API_SEARCH_SECONDS="60")
    counted = f"{QUEUES}/ingestion?limit=1"
    eventually(lambda: exporter.api.get(counted).json["counts"]["failed"] == 5000)

    answer = exporter.api.get(f"{QUEUES}/ingestion/failures").json
    assert (answer["seen"], answer["failed"], answer["complete"]) == (5000, 5000, True)
    assert answer["groupsTotal"] == len(answer["groups"]) == 40
    found = {group["ingestionSources"][0]["id"]: group for group in answer["groups"]}
    assert {source: group["count"] for source, group in found.items()} == {
        f"source-{fault}": number for fault, number in truth.items()
    }
    counts = [group["count"] for group in answer["groups"]]
    assert counts == sorted(counts, reverse=True)
    for source, group in found.items():
        fault = int(source.removeprefix("source-"))
        assert group["names"] == [{"name": "throws", "count": group["count"]}]
        assert group["attempts"] == {"min": 1 + fault % 2, "max": 1 + fault % 2}
        assert group["firstSeen"] <= group["lastSeen"] <= time.time() * 1000
        assert group["frame"] and "work.mjs" in group["frame"]

    # A group leads to its jobs, all of them, and its example is one of them.
    smallest = answer["groups"][-1]
    its = exporter.api.get(
        f"{QUEUES}/ingestion?fingerprint={smallest['fingerprint']}&limit=1000&order=desc"
    ).json
    assert its["pagination"]["totalJobs"] == len(its["jobs"]) == smallest["count"]
    assert its["search"] == {"seen": 5000, "complete": True}
    assert its["jobs"][0]["id"] == smallest["exampleId"]
    assert exporter.api.get(f"{QUEUES}/ingestion/failures?limit=3").json["groupsTotal"] == 40
    assert len(exporter.api.get(f"{QUEUES}/ingestion/failures?limit=3").json["groups"]) == 3


@pytest.fixture
def mail(server: Server) -> None:
    """A queue `mail` whose 10 failed jobs failed a second apart, the last one now."""
    now = int(time.time() * 1000)
    with server.client() as client:
        client.hset("bull:mail:meta", "version", "bullmq:5.56.3")
        for number in range(10):
            at = now - (9 - number) * 1000
            client.zadd("bull:mail:failed", {f"{number}": at})
            job = {
                "name": "even" if number % 2 == 0 else "odd",
                "data": f'{{"to":"{number}@corp.example","password":"hunter{number}"}}',
                "timestamp": at - 100,
                "finishedOn": at,
                "failedReason": f"Refused by Host-{number}",
                "returnvalue": '[{"Token":"tok_1"}]',
            }
            client.hset(f"bull:mail:{number}", mapping=job)


@pytest.mark.usefixtures("mail")
def test_jobs_are_searched_by_name_and_text(server: Server, start_exporter: StartExporter) -> None:
    exporter = start_exporter(server.url)

    def found(query: str) -> list[str]:
        answer = exporter.api.get(f"{QUEUES}/mail?{query}").json
        assert answer["search"]["complete"]
        return [job["id"] for job in answer["jobs"]]

    assert found("name=even") == ["0", "2", "4", "6", "8"]
    assert found("name=even&order=desc&limit=2&page=2") == ["4", "2"]
    assert found("text=host-7") == ["7"]  # the reason, without regard to case
    assert found("text=3%40corp") == ["3"]  # data
    assert found("text=tok_1&name=odd&limit=2") == ["1", "3"]  # return value
    assert found("name=even&text=host-7") == []
    last = exporter.api.get(f"{QUEUES}/mail?name=odd&limit=2&page=3").json
    assert last["pagination"] == {"currentPage": 3, "totalPages": 3, "totalJobs": 5, "limit": 2}
    assert "search" not in exporter.api.get(f"{QUEUES}/mail?name=&text=").json


@pytest.mark.usefixtures("mail")
def test_a_window_ends_the_reading_and_is_complete(
    server: Server, start_exporter: StartExporter
) -> None:
    exporter = start_exporter(server.url)
    with server.client() as client:
        client.zadd("bull:mail:failed", {"9": 1000, "8": 2000})
        client.hset("bull:mail:9", "finishedOn", 1000)
        client.hset("bull:mail:8", "finishedOn", 2000)
    answer = exporter.api.get(f"{QUEUES}/mail/failures?window=1h").json
    assert (answer["window"], answer["failed"], answer["complete"]) == (3600, 8, True)
    assert exporter.api.get(f"{QUEUES}/mail/failures").json["failed"] == 10
    for bad in ("0h", "1", "h", "1y", "-1h", "123456s"):
        refused = exporter.api.get(f"{QUEUES}/mail/failures?window={bad}")
        assert refused.status == 400
        assert "30m" in refused.json["message"]
    assert exporter.api.get(f"{QUEUES}/nothing/failures").status == 404
    assert exporter.api.get(f"{QUEUES}/mail?text={'x' * 501}").status == 400


@pytest.fixture
async def reader(server: Server) -> AsyncIterator[RedisReader]:
    redis = RedisReader(RedisSettings(port=server.port), connections=1)
    yield redis
    await redis.close()


def scan(reader: RedisReader, *, newest_first: bool, seconds: float = 60) -> Scan:
    queue, limits = Queue.named("bull", "mail"), ReadLimits(scan_seconds=seconds)
    return Scan(reader, queue, State.FAILED, newest_first=newest_first, limits=limits)


@pytest.mark.usefixtures("mail")
@pytest.mark.parametrize(("most", "seconds"), [(4, 60), (20_000, 0)])
async def test_a_reading_that_was_cut_short_says_so(
    reader: RedisReader, monkeypatch: pytest.MonkeyPatch, most: int, seconds: float
) -> None:
    monkeypatch.setattr(jobs, "SCAN_BATCH", 2)
    monkeypatch.setattr(jobs, "SCAN_JOBS", most)
    reading = scan(reader, newest_first=True, seconds=seconds)
    ids = [job.id async for job in reading.jobs()]
    assert not reading.complete
    assert ids == ["9", "8", "7", "6"][: reading.seen]


@pytest.mark.usefixtures("mail")
@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("moved", [1, 3, 7])
async def test_what_moves_during_a_reading_is_seen_once_or_the_reading_is_not_complete(
    server: Server,
    reader: RedisReader,
    monkeypatch: pytest.MonkeyPatch,
    newest_first: bool,
    moved: int,
) -> None:
    """Jobs are removed before the place of the reading, and added before it, again and again."""
    monkeypatch.setattr(jobs, "SCAN_BATCH", 4)
    monkeypatch.setattr(jobs, "SCAN_OVERLAP", 2)
    reading = scan(reader, newest_first=newest_first)
    failed = "bull:mail:failed"
    with server.client() as client:
        client.zadd(failed, {f"more-{number}": 1 + number for number in range(30)})
        for number in range(30):
            client.hset(f"bull:mail:more-{number}", "name", "x")
        everything = {member.decode() for member in client.zrange(failed, 0, -1)}
        seen = []
        async for job in reading.jobs():
            seen.append(job.id)
            if len(seen) % 4 == 0:
                for _ in range(moved if len(seen) < 20 else 0):
                    [(gone, _)] = client.zpopmax(failed) if newest_first else client.zpopmin(failed)
                    everything.discard(gone.decode())
        assert len(seen) == len(set(seen)) == reading.seen
        assert everything <= set(seen) or not reading.complete
        # Where little moves nothing is missed.
        assert reading.complete or moved > 2


async def test_large_jobs_are_read_whole_in_smaller_batches(
    server: Server, reader: RedisReader
) -> None:
    with server.client() as client:
        client.hset("bull:mail:meta", "version", "bullmq:5.56.3")
        for number in range(60):
            client.zadd("bull:mail:failed", {f"{number}": number})
            data = '"' + "x" * 60_000 + 'needle"'
            trace = '["Error: x\\n    at go (/app/go.js:1:1)"]'
            fields = {"name": "x", "data": data, "failedReason": "x", "stacktrace": trace}
            client.hset(f"bull:mail:{number}", mapping=fields)
    reading = scan(reader, newest_first=True)
    found = [job async for job in reading.jobs()]
    assert reading.complete
    assert len(found) == 60
    assert all("needle" in job.data for job in found)
    assert {innermost_frame(job.stacktrace) for job in found} == {"at go (go.js)"}


def test_who_hangs_up_makes_room_for_others(server: Server, start_exporter: StartExporter) -> None:
    with server.client() as client:
        client.hset("bull:mail:meta", "version", "bullmq:5.56.3")
        for at in range(0, 6000, 1000):
            ids = range(at, at + 1000)
            client.zadd("bull:mail:failed", {f"{number}": number for number in ids})
            with client.pipeline() as pipeline:
                for number in ids:
                    pipeline.hset(f"bull:mail:{number}", "failedReason", f"{number} 'x' 1.2.3.4")
                pipeline.execute()
    exporter = start_exporter(server.url, EXPORTER_API_SEARCH_SECONDS="60")
    search = f"GET {QUEUES}/mail/failures HTTP/1.1\r\nHost: x\r\nX-API-KEY: {API_KEY}\r\n\r\n"
    for _ in range(12):
        with socket.create_connection(("127.0.0.1", urlsplit(exporter.api.url).port or 0)) as gone:
            gone.sendall(search.encode())
            time.sleep(0.05)
    answer = exporter.api.get(f"{QUEUES}/mail/failures")
    assert answer.status == 200
    assert answer.json["seen"] == 6000
    assert "a request failed" not in exporter.log


@pytest.mark.usefixtures("mail")
def test_what_is_to_be_hidden_is_hidden_in_every_answer_and_not_to_be_found(
    server: Server, start_exporter: StartExporter
) -> None:
    exporter = start_exporter(server.url, EXPORTER_API_REDACT="PASSWORD, *oken")
    for path in ("mail", "mail/jobs/3", "mail?text=corp"):
        answer = exporter.api.get(f"{QUEUES}/{path}")
        assert answer.status == 200
        assert b"hunter" not in answer.body
        assert b"tok_1" not in answer.body
        assert b"[redacted]" in answer.body
        assert b"3@corp.example" in answer.body
    for secret in ("hunter3", "tok_1"):
        assert exporter.api.get(f"{QUEUES}/mail?text={secret}").json["jobs"] == []
    hidden = start_exporter(server.url, EXPORTER_API_REDACT="ingestionsourceid").api
    with server.client() as client:
        client.hset("bull:mail:3", "data", '{"ingestionSourceId":"source-3"}')
    for path in ("mail", "mail/jobs/3", "mail/failures"):
        assert b"source-3" not in hidden.get(f"{QUEUES}/{path}").body
        assert b"source-3" in exporter.api.get(f"{QUEUES}/{path}").body
    with server.client() as client:
        client.hset("bull:mail:3", "data", '{"to":"3@corp.example","password":"hunter3"}')
    # What cannot be looked through is hidden whole; JSON within a text is looked through.
    for data in (
        '{"password":"hunter3"',
        '{"password":NaN, "x":"hunter3"}',
        '{"body":"{\\"password\\":\\"hunter3\\"}"}',
        '{"body":"{\\"a\\":{\\"password\\":\\"hunter3"}',
        '{"password":"hunter3","a":' + "[" * 300 + "]" * 300 + "}",
        '{"body":"' + "[" * 900 + '{\\"password\\":\\"hunter3\\"}' + "]" * 900 + '"}',
        b'{"password":"hunter3\xff"}',
    ):
        with server.client() as client:
            client.hset("bull:mail:3", "data", data)
        for path in ("mail?limit=100", "mail/jobs/3"):
            answer = exporter.api.get(f"{QUEUES}/{path}")
            assert answer.status == 200
            assert b"hunter3" not in answer.body, data
        assert exporter.api.get(f"{QUEUES}/mail?text=hunter3").json["jobs"] == []
    with server.client() as client:
        client.hset("bull:mail:3", "data", '{"to":"3@corp.example","password":"hunter3"}')
    plain = start_exporter(server.url).api.get(f"{QUEUES}/mail/jobs/3").json["job"]
    assert plain["data"] == {"to": "3@corp.example", "password": "hunter3"}


@pytest.mark.parametrize("version", ["bullmq5", "bullmq6"])
def test_one_job_in_full(
    server: Server, start_exporter: StartExporter, start_work: StartWork, version: str
) -> None:
    work = start_work(version, server.port)
    parent = work.flow(
        {
            "name": "import",
            "queueName": "ingestion",
            "data": {},
            "opts": {"jobId": "the parent/of?all%"},
            "children": [
                {
                    "name": "logs",
                    "queueName": "ingestion",
                    "data": {"lines": 120},
                    "opts": {
                        "jobId": "with-logs",
                        "attempts": 2,
                        "priority": 3,
                        "ignoreDependencyOnFailure": True,
                    },
                },
                {"name": "done", "queueName": "indexing", "opts": {"jobId": "child"}},
                {"name": "waits", "queueName": "idle", "opts": {"jobId": "idle"}},
            ],
        }
    )
    assert parent == "the parent/of?all%"
    work.work("ingestion", {"name": "one"})
    work.work("indexing")
    exporter = start_exporter(server.url)

    def job(queue: str, job_id: str, query: str = "") -> dict[str, Any]:
        answer = exporter.api.get(f"{QUEUES}/{queue}/jobs/{quote(job_id, safe='')}{query}")
        assert answer.status == 200, answer
        assert answer.json["name"] == queue
        return dict(answer.json["job"])

    eventually(lambda: job("ingestion", "with-logs")["state"] == "failed")
    eventually(lambda: job("indexing", "child")["state"] == "completed")
    logs = job("ingestion", "with-logs")
    assert logs["failedReason"] == "in the middle"
    assert logs["attemptsMade"] == 2
    assert logs["options"]["attempts"] == 2
    assert logs["options"]["ignoreDependencyOnFailure"] is True
    assert logs["progress"] == {"done": 40, "token": "secret-progress"}
    assert logs["priority"] == 3
    assert logs["worker"] == "one"
    assert logs["parent"] == {"queue": "ingestion", "id": parent}
    assert logs["children"] is None
    assert logs["durations"]["total"] == logs["finishedOn"] - logs["timestamp"]
    lines = [f"line {number}" for number in range(1, 121)] * 2
    assert logs["logs"] == {"lines": lines[:100], "total": 240, "page": 1, "totalPages": 3}
    assert job("ingestion", "with-logs", "?logsPage=3")["logs"]["lines"] == lines[200:]

    whole = job("ingestion", parent)
    assert whole["state"] == "waiting-children"
    assert whole["children"]["counts"] == {
        "processed": 1,
        "unprocessed": 1,
        "failed": 0,
        "ignored": 1,
    }
    assert whole["children"]["complete"]
    outcomes = {(each["queue"], each["id"]): each["outcome"] for each in whole["children"]["jobs"]}
    assert outcomes == {
        ("indexing", "child"): "processed",
        ("idle", "idle"): "unprocessed",
        ("ingestion", "with-logs"): "ignored",
    }
    assert job("idle", "idle")["state"] == "waiting"
    work.call("idle", "pause")
    assert job("idle", "idle")["state"] == "paused"

    gone = exporter.api.get(f"{QUEUES}/ingestion/jobs/none")
    assert gone.status == 404
    assert "none" in gone.json["message"]
    assert exporter.api.get(f"{QUEUES}/ingestion/jobs/with-logs?logsPage=0").status == 400
    found = exporter.api.get(f"/v1/jobs/keys/{quote(f'bull:ingestion:{parent}', safe='')}")
    assert found.json == {"name": "ingestion", "id": parent}
    assert exporter.api.get("/v1/jobs/keys/bull:nothing:1").status == 404
    assert exporter.api.without_credentials().get("/v1/jobs/keys/bull:idle:1").status == 401


def test_a_job_within_a_long_list_still_has_its_state(
    server: Server, start_exporter: StartExporter
) -> None:
    with server.client() as client:
        client.hset("bull:long:meta", "version", "bullmq:5.56.3")
        client.rpush("bull:long:wait", *range(30_000))
        for number in (5, 15_000, 29_990):
            client.hset(f"bull:long:{number}", "name", "x")
        client.hset("bull:long:lost", "name", "x")
        client.hset("bull:short:meta", "version", "bullmq:5.56.3")
        client.hset("bull:short:lost", "name", "x")
    exporter = start_exporter(server.url)
    states = [
        exporter.api.get(f"{QUEUES}/{job}").json["job"]["state"]
        for job in ("long/jobs/5", "long/jobs/15000", "long/jobs/29990", "short/jobs/lost")
    ]
    assert states == ["waiting", "waiting", "waiting", None]


def test_large_logs_and_many_children_are_cut_and_said_to_be(
    server: Server, start_exporter: StartExporter
) -> None:
    with server.client() as client:
        client.hset("bull:mail:meta", "version", "bullmq:5.56.3")
        client.hset("bull:mail:1", mapping={"name": "x", "opts": '"' + "o" * (1 << 20) + '"'})
        client.rpush("bull:mail:1:logs", "x" * 30_000, b"\xff")
        client.sadd("bull:mail:1:dependencies", *(f"bull:mail:{n}" for n in range(500)))
        client.zadd("bull:mail:1:unsuccessful", {f"bull:mail:{n}": n for n in range(500, 700)})
    job = start_exporter(server.url).api.get(f"{QUEUES}/mail/jobs/1").json["job"]
    assert job["options"] == "[left out: 1048578 bytes]"
    assert job["logs"]["lines"][0].endswith("xx [left out: 20000 bytes]")
    assert job["logs"]["lines"][1] == "\\xff"
    assert job["children"]["counts"]["unprocessed"] == 500
    assert len(job["children"]["jobs"]) == 100
    assert not job["children"]["complete"]


def test_the_place_of_a_relative_is_found_where_prefixes_hold_colons() -> None:
    prefixes = ["eu", "eu:bull", "bull"]
    assert JobKey.parsed(b"eu:bull:mail:7:8", prefixes) == JobKey("eu:bull", "mail", b"7:8")
    assert JobKey.parsed(b"bull:mail:7", prefixes) == JobKey("bull", "mail", b"7")
    assert JobKey.parsed(b"us:mail:7", prefixes) == JobKey("us", "mail", b"7")


def test_ages_of_queues_are_returned_when_asked_for(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    work = start_work("bullmq5", server.port)
    before = int(time.time() * 1000)
    work.add("mail", "send", 1)
    exporter = start_exporter(server.url)
    eventually(lambda: exporter.api.get(QUEUES).json["queues"])
    [plain] = exporter.api.get(QUEUES).json["queues"]
    assert plain.keys() == {"name", "counts"}
    [queue] = exporter.api.get(f"{QUEUES}?detail=true").json["queues"]
    assert queue["paused"] is False
    assert before - 1000 <= queue["oldestWaiting"] <= time.time() * 1000
    assert queue["oldestActive"] is None
    assert queue["nextDelayed"] is None
