"""Whatever fails in Redis or on the way to it: the truth is reported, at once, and all is counted.

In every test a real BullMQ works, and clients read /metrics and the API all the time: `Clients`
judges each answer, so what only shows for a moment is seen as well. docs/reliability.md says what
is promised for each fault.
"""

from __future__ import annotations

import itertools
import re
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
import redis

from tests.support.bullmq import StartWork, Work
from tests.support.counters import assert_counted, reported, total, wait_following
from tests.support.exporters import Exporter, StartExporter
from tests.support.job_counts import expected_counts, reported_counts
from tests.support.programs import program
from tests.support.proxy import Proxy
from tests.support.servers import Server, running
from tests.support.waiting import eventually

# EXPORTER_REDIS_TIMEOUT. Nothing but a fault takes so long, however busy the machine is.
TIMEOUT = 2.0
# Seconds that any answer may take, and that a page may be old: docs/reliability.md.
LIMIT = 10 * TIMEOUT

QUEUE = "ingestion"
QUEUES = "/v1/jobs/queues"
JOBS = f"{QUEUES}/{QUEUE}?status=completed&limit=20&brief=true"
FAILURES = f"{QUEUES}/{QUEUE}/failures"
JOB = f"{QUEUES}/{QUEUE}/jobs/1"
PATHS = (QUEUES, JOBS, FAILURES, JOB)
OPTIONS = ("--enable-debug-command", "yes")  # for the tests alone
# How it shows that a server has gone, at first in this way and then in that.
GONE = "refused|reset|closed"
# Jobs that a fault takes from their worker are given to it again, soon and however often.
WORKER = {
    "concurrency": 5,
    "lockDuration": 5000,
    "stalledInterval": 500,
    "maxStalledCount": 1000,
    "maxStartedAttempts": 1000,
    "runRetryDelay": 200,
}
# The user of the README, without a password for `default`, as which BullMQ comes.
ACL = (
    "on >a-password resetkeys %R~bull:* %R~oa:worker:* resetchannels "
    "-@all +@read +ping +evalsha_ro +eval_ro +client|setname +client|list"
)


class Clients:
    """Read /metrics and the API all the time, and judge every answer.

    `emptied`: jobs may vanish from Redis, so counts may fall and the queue may be gone."""

    def __init__(self, exporter: Exporter, *, emptied: bool = False) -> None:
        self.exporter = exporter
        self._emptied = emptied
        self._ended = threading.Event()
        self._expected: int | None = None  # bullmq_up, where it is certain
        self._problems: list[str] = []
        self._counters: dict[tuple[str, ...], float] = {}
        self._least: Counter[str] = Counter()
        self.pages: Counter[float] = Counter()  # by bullmq_up
        self.answers: Counter[int] = Counter()  # by status
        self._threads = [
            threading.Thread(target=self._go_on, args=(visit,))
            for visit in (self._scrape, *map(self._asking, PATHS))
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            # A busy machine may have answered nothing else than the outage yet.
            eventually(lambda: self._problems or (self.pages[1] and self.answers[200]))
        self._ended.set()
        for thread in self._threads:
            thread.join()
        if kind is None:
            assert self._problems == []

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Redis cannot be read in this block: as soon as that is known, all say so."""
        value = self.exporter.metrics.value
        eventually(lambda: value("bullmq_up") == 0)
        # The API reads by itself, and may be a moment later.
        eventually(lambda: self.exporter.api.get(QUEUES).status == 503)
        down, refused = self.pages[0], self.answers[503]
        failed = value("bullmq_exporter_poll_errors_total")
        with self._certain(0):
            assert self.exporter.metrics.get("/-/ready").status == 503
            assert self.exporter.metrics.get("/-/healthy").status == 200
            yield
            eventually(lambda: self.pages[0] > down and self.answers[503] > refused)
            # A further try fails as well, and is not worth a line.
            eventually(lambda: value("bullmq_exporter_poll_errors_total") > failed)

    def no_outage(self) -> Any:
        """Redis can be read in this block."""
        return self._certain(1)

    @contextmanager
    def _certain(self, up: int) -> Iterator[None]:
        self._expected = up
        try:
            yield
        finally:
            self._expected = None

    def _go_on(self, visit: Callable[[], None]) -> None:
        while not self._ended.wait(0.03):
            try:
                visit()
            except Exception as problem:
                self._problems.append(f"{type(problem).__name__}: {problem}"[:1000])

    def _scrape(self) -> None:
        before, began = self._expected, time.time()
        families = self.exporter.metrics.families()
        after, ended = self._expected, time.time()
        assert ended - began < LIMIT
        samples = [sample for family in families.values() for sample in family.samples]
        own = {sample.name: sample.value for sample in samples if "queue" not in sample.labels}
        queues = {sample.name for sample in samples if "queue" in sample.labels}
        up = own["bullmq_up"]
        self.pages[up] += 1
        if before == after is not None:
            assert up == after
        if not up:
            assert queues == set()
            return
        assert began - own["bullmq_exporter_last_poll_timestamp_seconds"] < LIMIT
        if not self._emptied:
            assert queues > {"bullmq_job_count", "bullmq_queue_paused"}
        for sample in samples:
            labels = tuple(sample.labels.values())
            if sample.name == "bullmq_job_count" and sample.labels["state"] == "completed":
                self._grows("gauge", sample.value)
            if sample.name.endswith("_total") and "queue" in sample.labels:
                known = self._counters.get((sample.name, *labels), 0)
                assert sample.value >= known, (sample.name, labels, known)
                self._counters[sample.name, *labels] = sample.value

    def _asking(self, path: str) -> Callable[[], None]:
        def ask() -> None:
            before, began = self._expected, time.monotonic()
            answer = self.exporter.api.get(path)
            after = self._expected
            assert time.monotonic() - began < LIMIT
            self.answers[answer.status] += 1
            if before == after is not None:
                assert answer.status == (200 if after else 503) or (self._emptied and after), path
            if answer.status == 503:
                assert answer.json == {"message": "Redis cannot be reached"}
                assert answer.headers["Retry-After"]
            elif not (self._emptied and answer.status == 404):
                assert answer.status == 200, (path, answer.text)
                self._judge(path, answer.json)

        return ask

    def _judge(self, path: str, reported: Any) -> None:
        if self._emptied:
            return
        if path == QUEUES:
            [queue] = reported["queues"]
            assert None not in queue["counts"].values()
            self._grows(path, queue["counts"]["completed"])
        elif path == JOBS:
            jobs = reported["pagination"]["totalJobs"]
            assert len(reported["jobs"]) == min(20, jobs)
            self._grows(path, jobs)
        elif path == FAILURES:
            assert reported["complete"] and reported["seen"] == reported["failed"]
            self._grows(path, reported["failed"])
        else:
            assert reported["job"]["id"] == "1"

    def _grows(self, what: str, value: float) -> None:
        """BullMQ keeps every job here: a number that falls is false."""
        assert self._emptied or value >= self._least[what], (what, value, self._least[what])
        self._least[what] = value


@dataclass
class Stack:
    """A BullMQ that works, and an exporter that watches it."""

    exporter: Exporter
    work: Work
    server: Server  # the one that BullMQ works on
    added: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, number: int) -> None:
        """Jobs; `fails` fail, all others complete, and all are kept."""
        self.work.add(QUEUE, name, number)
        self.added[name] += number

    def add_some(self) -> None:
        self.add("plain", 20)
        self.add("fails", 5)

    def add_much(self) -> None:
        """More than is done when the fault begins."""
        self.add("sleeps-100", 120)
        self.add("fails", 20)

    def ends(self, what: str) -> float:
        return total(self.exporter, f"bullmq_job_{what}_total", queue=QUEUE)

    def assert_truth(self, *, disturbed: bool = False) -> None:
        """All is done; now every gauge and counter is what BullMQ says.

        `disturbed`: the fault hit BullMQ too. Its workers then do not know of every job how it
        ended, for the answer may have been lost; but BullMQ keeps each job.
        """
        truth = self.work.settle()
        counts = expected_counts({"counts": self.work.call(QUEUE, "getJobCounts")}, paused=False)
        eventually(lambda: self.exporter.metrics.value("bullmq_up") == 1)
        eventually(lambda: reported_counts(self.exporter, QUEUE) == counts)
        eventually(lambda: self.exporter.metrics.value("bullmq_queue_workers", queue=QUEUE) == 1)
        [queue] = self.exporter.api.get(QUEUES).json["queues"]
        assert queue["counts"] == counts
        if not disturbed:
            assert_counted(self.exporter, truth)
        else:
            eventually(self._all_ends_are_counted)
        assert total(self.exporter, "bullmq_exporter_events_missed_total") == 0

    def _all_ends_are_counted(self) -> bool:
        """Of each name as many were completed and failed as BullMQ keeps."""
        kept: Counter[tuple[str, str]] = Counter()
        with self.server.client(decode_responses=True) as client:
            for what in ("completed", "failed"):
                for job_id in client.zrange(f"bull:{QUEUE}:{what}", 0, -1):
                    kept[str(client.hget(f"bull:{QUEUE}:{job_id}", "name")), what] += 1
        assert kept.total() == self.added.total()
        counted = {
            (name, what): number
            for name, of_name in reported(self.exporter).get(QUEUE, {}).items()
            for what, number in of_name.items()
            if what in ("added", "completed", "failed")
        }
        assert counted == kept | {(name, "added"): n for name, n in self.added.items()}
        return True

    def assert_logged_once(self, reason: str, *, others: str = "") -> None:
        """One line when the outage began, with this reason, and one when it ended.

        Where some of the polls may fail in `others` ways too, one further line for each of them.
        """
        assert "Traceback" not in self.exporter.log
        [reasons] = self.exporter.outages
        assert len(reasons) == len(set(reasons)), reasons
        assert any(re.search(reason, each) for each in reasons), reasons
        if not others:
            assert len(reasons) == 1, reasons
        for each in reasons:
            assert re.search(f"{reason}|{others or reason}", each), reasons
        assert len(self.exporter.lines("Redis is back")) == 1
        assert '"level": "critical"' not in self.exporter.log
        assert self.exporter.log.count('"level": "error"') == len(reasons)

    def assert_quiet(self) -> None:
        """There was no outage, and none was reported."""
        assert self.exporter.lines("Redis is unavailable") == []
        assert "Traceback" not in self.exporter.log


Begin = Callable[..., Stack]


@pytest.fixture
def begin(start_exporter: StartExporter, start_work: StartWork) -> Begin:
    """Starts both, and has the first jobs done and counted."""

    def start(server: Server, url: str | None = None, **variables: str) -> Stack:
        timeout = {"EXPORTER_REDIS_TIMEOUT": str(TIMEOUT)}
        exporter = start_exporter(url or server.url, ready=False, **timeout, **variables)
        work = start_work("bullmq5", server.port)
        work.work(QUEUE, WORKER)
        exporter.wait_ready()
        eventually(lambda: reported_counts(exporter, QUEUE))
        stack = Stack(wait_following(exporter), work, server)
        stack.add_some()
        assert_counted(exporter, work.settle())
        return stack

    return start


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    with running("valkey", tmp_path, *OPTIONS) as server:
        yield server


@pytest.fixture(params=["valkey", "redis"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    with running(request.param, tmp_path, *OPTIONS) as server:
        yield server


def reading_alone(server: Server, admin: redis.Redis) -> str:
    """Makes a user that may read alone; the URL with it."""
    admin.execute_command("ACL", "SETUSER", "reader", *ACL.split())
    return f"redis://reader:a-password@127.0.0.1:{server.port}"


Reader = tuple[redis.Redis, Stack]


@pytest.fixture
def reader(own: Server, begin: Begin) -> Iterator[Reader]:
    """Who may do all, and a stack whose exporter may read alone."""
    with own.client() as admin:
        yield admin, begin(own, reading_alone(own, admin))


@contextmanager
def again_and_again(act: Callable[[], object], pause: float) -> Iterator[None]:
    """Does it all the time, while the block runs."""
    ended = threading.Event()

    def loop() -> None:
        while not ended.wait(pause):
            act()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def counts_in(server: Server) -> dict[str, int]:
    """What stands in Redis, read without BullMQ's scripts: they write."""
    with server.client() as client:
        lists = {"waiting": "wait", "active": "active", "paused": "paused"}
        sets = ("completed", "failed", "delayed", "prioritized", "waiting-children")
        return {state: client.llen(f"bull:{QUEUE}:{key}") for state, key in lists.items()} | {
            state: client.zcard(f"bull:{QUEUE}:{state}") for state in sets
        }


def kill_connections_of(admin: redis.Redis, exporter_user: str) -> None:
    admin.execute_command("CLIENT", "KILL", "USER", exporter_user)


# The server goes


def test_redis_killed_and_started_with_its_data_is_an_outage_that_loses_nothing(
    either: Server, begin: Begin
) -> None:
    stack = begin(either)
    with Clients(stack.exporter) as clients:
        before = stack.ends("completed")
        stack.add_much()
        eventually(lambda: stack.ends("completed") > before)
        either.stop()
        with clients.outage():
            pass
        either.start()
        stack.assert_truth(disturbed=True)
    stack.assert_logged_once(GONE, others=GONE)


def test_redis_killed_and_started_empty_is_reported_as_empty_and_counted_on(
    own: Server, begin: Begin, tmp_path: Path
) -> None:
    stack = begin(own)
    before = stack.work.truth()
    with Clients(stack.exporter, emptied=True) as clients:
        own.stop()
        shutil.rmtree(tmp_path / "appendonlydir")
        with clients.outage():
            pass
        own.start()
        eventually(lambda: stack.exporter.metrics.value("bullmq_up") == 1)
        stack.add_some()
        stack.assert_truth()
        [completed] = {reported_counts(stack.exporter, QUEUE)["completed"]}
        # The gauge is of what is there, the counter of all that there ever was.
        assert completed == before[QUEUE]["plain"]["completed"] == 20
        assert stack.ends("completed") == 40
    stack.assert_logged_once(GONE, others=GONE)


def test_redis_flushed_while_it_runs_is_reported_as_empty_and_counted_on(
    own: Server, begin: Begin
) -> None:
    stack = begin(own)
    with (
        Clients(stack.exporter, emptied=True) as clients,
        own.client() as admin,
        clients.no_outage(),
    ):
        for times in (1, 2):
            admin.flushall()
            # A worker's look for stalled jobs may have made an empty queue of it again.
            eventually(lambda: not any(reported_counts(stack.exporter, QUEUE).values()))
            stack.add_some()
            stack.assert_truth()
            assert reported_counts(stack.exporter, QUEUE)["completed"] == 20
            assert stack.ends("completed") == 20 * (times + 1)  # with those of the beginning
    stack.assert_quiet()


def test_redis_that_loads_its_data_is_an_outage_until_it_has(tmp_path: Path, begin: Begin) -> None:
    # It takes its time for each command that it finds in its file: a minute, which is ended below.
    # Every 1,024 of them it looks who is there, which must not take so long that we give up.
    with running("redis", tmp_path, *OPTIONS, "--key-load-delay", "200") as server:
        stack = begin(server)
        with server.client() as client:
            for _ in range(10):
                pipeline = client.pipeline(transaction=False)
                for number in range(20_000):
                    pipeline.set(f"other:{number}", number)
                pipeline.execute()
        stack.add("plain", 700)
        stack.work.settle()
        with Clients(stack.exporter) as clients:
            server.stop()
            starting = threading.Thread(target=server.start)
            starting.start()
            with clients.outage():
                eventually(lambda: any("loading" in r for r in reasons_of(stack.exporter)))
            with server.client() as client:
                client.config_set("key-load-delay", 0)
            starting.join()
            stack.add_some()
            stack.assert_truth()
        stack.assert_logged_once("loading", others=f"{GONE}|did not answer within 2 s")


def reasons_of(exporter: Exporter) -> list[str]:
    return [line["reason"] for line in exporter.lines("Redis is unavailable")]


# The server hangs, or is busy with others


def test_redis_paused_for_longer_than_the_timeout_is_an_outage(own: Server, begin: Begin) -> None:
    stack = begin(own)
    with Clients(stack.exporter) as clients:
        before = stack.ends("completed")
        stack.add_much()
        eventually(lambda: stack.ends("completed") > before)
        own.pause()
        try:
            with clients.outage():
                pass
        finally:
            own.resume()
        stack.assert_truth(disturbed=True)
    stack.assert_logged_once("did not answer within 2 s")


def test_redis_asleep_by_a_command_of_somebody_else_is_an_outage(own: Server, begin: Begin) -> None:
    stack = begin(own)
    with Clients(stack.exporter) as clients, own.client() as other:
        before = stack.ends("completed")
        stack.add_much()
        eventually(lambda: stack.ends("completed") > before)
        # Nothing can end it: long enough for two polls that fail, and requests.
        sleeping = threading.Thread(target=lambda: other.execute_command("DEBUG", "SLEEP", "15"))
        sleeping.start()
        with clients.outage():
            pass
        sleeping.join()
        stack.assert_truth(disturbed=True)
    stack.assert_logged_once("did not answer within 2 s")


def test_redis_busy_with_an_endless_script_of_somebody_else_is_an_outage(
    own: Server, begin: Begin
) -> None:
    stack = begin(own)
    with (
        Clients(stack.exporter) as clients,
        own.client() as other,
        own.client() as admin,
    ):
        before = stack.ends("completed")
        stack.add_much()
        eventually(lambda: stack.ends("completed") > before)
        admin.config_set("busy-reply-threshold", 100)

        def run() -> None:
            with suppress(redis.ResponseError):  # killed
                other.eval("while true do end", 0)

        endless = threading.Thread(target=run)
        endless.start()
        try:
            with clients.outage():
                eventually(lambda: any("BUSY" in reason for reason in reasons_of(stack.exporter)))
        finally:
            admin.script_kill()
            endless.join()
        stack.assert_truth(disturbed=True)
    # Where the first poll came before Redis said that it is busy, it did not answer.
    stack.assert_logged_once("BUSY", others="did not answer within 2 s")


# The server refuses


def refuse_for_memory(admin: redis.Redis, _: Path) -> Callable[[], object]:
    admin.config_set("maxmemory", 1)
    return lambda: admin.config_set("maxmemory", 0)


def refuse_for_the_disk(admin: redis.Redis, directory: Path) -> Callable[[], object]:
    """A snapshot that could not be written makes Redis refuse writes: its directory is gone."""
    admin.config_set("appendonly", "no")
    shutil.rmtree(directory)
    admin.config_set("save", "3600 1000000")
    admin.bgsave()
    eventually(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "err")
    return lambda: admin.config_set("save", "")


def refuse_for_replicas(admin: redis.Redis, _: Path) -> Callable[[], object]:
    admin.config_set("min-replicas-to-write", 1)
    return lambda: admin.config_set("min-replicas-to-write", 0)


@pytest.mark.parametrize(
    ("begin_to_refuse", "error"),
    [
        pytest.param(refuse_for_memory, "OOM|maxmemory", id="OOM"),
        pytest.param(refuse_for_the_disk, "MISCONF", id="MISCONF"),
        pytest.param(refuse_for_replicas, "NOREPLICAS", id="NOREPLICAS"),
    ],
)
def test_a_redis_that_refuses_to_write_is_read_on(
    tmp_path: Path, begin: Begin, begin_to_refuse: Callable[..., Callable[[], object]], error: str
) -> None:
    directory = tmp_path / "redis"
    directory.mkdir()
    with running("redis", directory, *OPTIONS) as server, server.client() as admin:
        stack = begin(server)
        with Clients(stack.exporter) as clients, clients.no_outage():
            before = stack.ends("completed")
            stack.add_much()
            eventually(lambda: stack.ends("completed") > before)
            end = begin_to_refuse(admin, directory)
            with pytest.raises(redis.RedisError, match=error):
                admin.set("any", "thing")
            # BullMQ stands still, or nearly so; that is reported.
            eventually(lambda: reported_counts(stack.exporter, QUEUE) == counts_in(server))
            end()
            stack.assert_truth(disturbed=True)
        stack.assert_quiet()


def test_a_replica_is_read_while_its_primary_is_there_and_reported_as_stale_when_it_says_so(
    tmp_path: Path, begin: Begin
) -> None:
    (tmp_path / "primary").mkdir()
    (tmp_path / "replica").mkdir()
    with ExitStack() as servers:
        options = (*OPTIONS, "--repl-diskless-sync-delay", "0")
        primary, replica = (
            servers.enter_context(running("redis", tmp_path / name, *options))
            for name in ("primary", "replica")
        )
        admin = servers.enter_context(replica.client())
        admin.replicaof("127.0.0.1", primary.port)
        admin.config_set("replica-serve-stale-data", "no")
        eventually(lambda: admin.info("replication")["master_link_status"] == "up")
        stack = begin(primary, replica.url)
        clients = servers.enter_context(Clients(stack.exporter))
        with clients.no_outage():
            with pytest.raises(redis.ReadOnlyError):
                admin.set("any", "thing")
            stack.add_some()
            assert_counted(stack.exporter, stack.work.settle())
            eventually(lambda: reported_counts(stack.exporter, QUEUE) == counts_in(primary))
        stack.assert_quiet()

        primary.stop()
        with clients.outage():
            pass
        primary.start()
        stack.add_some()
        assert_counted(stack.exporter, stack.work.settle())
        eventually(lambda: reported_counts(stack.exporter, QUEUE) == counts_in(primary))
        # While the replica takes over the data anew it may say that it is loading.
        stack.assert_logged_once("Link with MASTER is down", others=f"{GONE}|loading")
        assert total(stack.exporter, "bullmq_exporter_events_missed_total") == 0


def test_a_redis_with_too_many_clients_is_an_outage(reader: Reader) -> None:
    admin, stack = reader
    with Clients(stack.exporter) as clients:
        admin.config_set("maxclients", 1)
        kill_connections_of(admin, "reader")  # BullMQ keeps its own
        with clients.outage():
            stack.add_some()
        admin.config_set("maxclients", 10_000)
        stack.assert_truth()
    stack.assert_logged_once("max number of clients")


# Who may read


@pytest.mark.parametrize(
    ("withdrawn", "given_back", "reason"),
    [
        pytest.param("off", "on", "refused the credentials", id="user off"),
        pytest.param("resetkeys", "%R~bull:*", "does not let user 'reader' read", id="keys"),
        pytest.param("-@read", "+@read", "does not let us read", id="reading"),
        pytest.param("-@all", ACL, "does not let user 'reader' read", id="all"),
    ],
)
def test_rights_withdrawn_are_an_outage_that_ends_when_they_are_given_back(
    reader: Reader, withdrawn: str, given_back: str, reason: str
) -> None:
    admin, stack = reader
    with Clients(stack.exporter) as clients:
        admin.execute_command("ACL", "SETUSER", "reader", withdrawn)
        if withdrawn == "off":  # those that are connected may stay
            kill_connections_of(admin, "reader")
        with clients.outage():
            stack.add_some()
        admin.execute_command("ACL", "SETUSER", "reader", *given_back.split())
        stack.assert_truth()
    stack.assert_logged_once(reason)
    assert "a-password" not in stack.exporter.log


def test_without_the_right_to_scripts_there_is_an_outage_while_jobs_wait(
    own: Server, start_exporter: StartExporter
) -> None:
    """Counts are read without; since when the oldest job waits is not."""
    with own.client() as admin:
        admin.hset("bull:mail:meta", "version", "bullmq:5.56.3")
        admin.lpush("bull:mail:wait", "1")
        exporter = start_exporter(reading_alone(own, admin))
        up = partial(exporter.metrics.value, "bullmq_up")
        admin.execute_command("ACL", "SETUSER", "reader", "-evalsha_ro", "-eval_ro")
        eventually(lambda: up() == 0)
        assert "does not let user 'reader' read" in reasons_of(exporter)[0]
        admin.execute_command("ACL", "SETUSER", "reader", "+evalsha_ro", "+eval_ro")
        eventually(lambda: up() == 1)


def test_a_job_that_may_not_be_read_is_not_reported_as_gone(reader: Reader) -> None:
    admin, stack = reader
    # Other than the poll's scripts, which take it for a value that they leave out.
    admin.execute_command("ACL", "SETUSER", "reader", "-hmget")
    for path in (JOB, JOBS, FAILURES):
        answer = stack.exporter.api.get(path)
        assert answer.status == 503, (path, answer.text)
    admin.execute_command("ACL", "SETUSER", "reader", "+hmget")
    assert {stack.exporter.api.get(path).status for path in PATHS} == {200}


def test_failed_jobs_that_may_not_be_listed_are_not_reported_as_none(reader: Reader) -> None:
    admin, stack = reader
    admin.execute_command("ACL", "SETUSER", "reader", "-@read")
    for path in (JOBS, FAILURES):
        answer = stack.exporter.api.get(path)
        assert answer.status == 503, (path, answer.text)


def test_a_password_is_used_without_a_word_in_the_log(reader: Reader) -> None:
    admin, stack = reader
    kill_connections_of(admin, "reader")
    assert stack.exporter.api.get(JOBS).status == 200
    assert '"level": "warning"' not in stack.exporter.log


def test_a_password_that_is_changed_is_an_outage_until_it_is_valid_again(reader: Reader) -> None:
    admin, stack = reader
    with Clients(stack.exporter) as clients:
        admin.execute_command("ACL", "SETUSER", "reader", "resetpass", ">another-password")
        kill_connections_of(admin, "reader")
        with clients.outage():
            stack.add_some()
        admin.execute_command("ACL", "SETUSER", "reader", ">a-password")
        stack.assert_truth()
    stack.assert_logged_once("refused the credentials .*REDIS_PASSWORD")
    assert "a-password" not in stack.exporter.log


def test_reasons_that_come_by_turns_are_each_logged_once(reader: Reader) -> None:
    admin, stack = reader
    failed = partial(stack.exporter.metrics.value, "bullmq_exporter_poll_errors_total")

    def switch_off() -> None:
        admin.execute_command("ACL", "SETUSER", "reader", "off")
        kill_connections_of(admin, "reader")

    with Clients(stack.exporter) as clients:
        switch_off()
        with clients.outage():
            admin.execute_command("ACL", "SETUSER", "reader", "on", "resetkeys")
            eventually(lambda: len(reasons_of(stack.exporter)) == 2)
            switch_off()
            before = failed()
            eventually(lambda: failed() >= before + 2)  # the second began after that
        admin.execute_command("ACL", "SETUSER", "reader", "on", "%R~bull:*")
        stack.assert_truth()
    stack.assert_logged_once("refused the credentials", others="does not let user 'reader' read")


# The host


def test_a_clock_that_is_stepped_changes_nothing_that_is_reported(
    own: Server, begin: Begin, tmp_path: Path
) -> None:
    program("faketime", "faketime")
    [library] = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    stack = begin(
        own,
        LD_PRELOAD=str(library),
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_NO_CACHE="1",
        # A step of the host's clock leaves this one alone.
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )
    value = stack.exporter.metrics.value
    added = int(time.time() * 1000)
    with own.client() as client:
        client.hset("bull:idle:meta", "version", "bullmq:5.56.3")
        client.hset("bull:idle:1", mapping={"name": "n", "timestamp": added})
        client.lpush("bull:idle:wait", "1")
    since = "bullmq_queue_oldest_waiting_timestamp_seconds"
    eventually(lambda: value(since, queue="idle"))
    ours = "bullmq_exporter_last_poll_timestamp_seconds"
    for seconds in (-7200, 7200, 0):
        clock.write_text(f"{seconds:+}")
        eventually(lambda by=seconds: abs(value(ours) - time.time() - by) < 60)
        polls = value("bullmq_exporter_poll_duration_seconds_count")
        stack.add_some()
        eventually(lambda n=polls: value("bullmq_exporter_poll_duration_seconds_count") >= n + 5)
        stack.work.settle()
        assert_counted(stack.exporter, stack.work.settle())
        eventually(lambda: reported_counts(stack.exporter, QUEUE) == counts_in(own))
        assert value(since, queue="idle") == added / 1000
        assert value("bullmq_job_wait_duration_seconds_sum", queue=QUEUE, name="plain") < 600
        assert {stack.exporter.api.get(path).status for path in PATHS} == {200}
    stack.assert_quiet()


# The network


@pytest.fixture
def proxied(own: Server, begin: Begin) -> Iterator[tuple[Proxy, Stack]]:
    """Only the exporter's way to Redis is disturbed; BullMQ goes on."""
    with Proxy(own.port) as proxy:
        yield proxy, begin(own, f"redis://127.0.0.1:{proxy.port}")


def cut(proxy: Proxy) -> Callable[[], None]:
    to = proxy.to
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        closed = nobody.getsockname()[1]
    proxy.switch(closed)
    return lambda: proxy.switch(to)


def half_open(proxy: Proxy) -> Callable[[], None]:
    proxy.silent = True
    return lambda: setattr(proxy, "silent", False)


def too_slow(proxy: Proxy) -> Callable[[], None]:
    proxy.delay = 2 * TIMEOUT
    return lambda: setattr(proxy, "delay", 0)


def reset_within_an_answer(after: int) -> Callable[[Proxy], Callable[[], None]]:
    def start(proxy: Proxy) -> Callable[[], None]:
        proxy.most = after
        return lambda: setattr(proxy, "most", None)

    return start


@pytest.mark.parametrize(
    ("disturb", "reason"),
    [
        pytest.param(cut, "cannot be reached: .*(closed|reset)", id="cut"),
        pytest.param(half_open, "did not answer within 2 s", id="half-open"),
        pytest.param(too_slow, "did not answer within 2 s", id="too slow"),
        pytest.param(reset_within_an_answer(1), "cannot be reached", id="reset after 1 byte"),
        pytest.param(reset_within_an_answer(60), "cannot be reached", id="reset after 60 bytes"),
    ],
)
def test_a_network_that_fails_is_an_outage_and_what_happened_meanwhile_is_counted(
    proxied: tuple[Proxy, Stack],
    disturb: Callable[[Proxy], Callable[[], None]],
    reason: str,
) -> None:
    proxy, stack = proxied
    with Clients(stack.exporter) as clients:
        stack.add_some()
        backfill = disturb(proxy)
        with clients.outage():
            for _ in range(3):
                stack.add_some()
                time.sleep(0.2)
        backfill()
        stack.add_some()
        stack.assert_truth()
    stack.assert_logged_once(reason, others=f"{GONE}|did not answer within 2 s")


def test_a_network_that_is_slow_within_the_timeout_changes_nothing(
    proxied: tuple[Proxy, Stack],
) -> None:
    proxy, stack = proxied
    with Clients(stack.exporter) as clients, clients.no_outage():
        proxy.delay = TIMEOUT / 100  # room enough for a busy machine too
        for _ in range(5):
            stack.add_some()
            time.sleep(0.3)
        stack.assert_truth()
        proxy.delay = 0
    stack.assert_quiet()


def test_answers_that_are_cut_anywhere_are_never_taken_for_whole_ones(
    proxied: tuple[Proxy, Stack],
) -> None:
    proxy, stack = proxied
    lengths = itertools.cycle([3, 700, 17, 5000, 170, 90, 2500, 330])

    def other_length() -> None:
        proxy.cut_after = next(lengths)

    with Clients(stack.exporter) as clients:
        with again_and_again(other_length, 0.05):
            for _ in range(12):
                stack.add_some()
                time.sleep(0.2)
        proxy.cut_after = None
        stack.assert_truth()
        assert clients.answers[503]
    assert "Traceback" not in stack.exporter.log


def test_events_that_were_trimmed_while_the_network_was_cut_are_counted_as_missed(
    own: Server, proxied: tuple[Proxy, Stack]
) -> None:
    proxy, stack = proxied
    with Clients(stack.exporter) as clients, own.client() as admin:
        backfill = cut(proxy)
        with clients.outage():
            stack.add("plain", 60)
            stack.add("fails", 30)
            stack.work.settle()
            admin.xtrim(f"bull:{QUEUE}:events", maxlen=0, approximate=False)
        backfill()
        missed = "bullmq_exporter_events_missed_total"
        # Each job had four at least: added, waiting, active, and its end.
        eventually(lambda: total(stack.exporter, missed) >= 4 * 90)
        # How jobs ended is found among those that are kept.
        eventually(lambda: stack.ends("completed") == 80 and stack.ends("failed") == 35)
    [line] = eventually(lambda: stack.exporter.lines("events were missed"))
    assert line["count"] == total(stack.exporter, missed)


# Somebody does it again and again


def test_connections_killed_again_and_again_lose_nothing(either: Server, begin: Begin) -> None:
    stack = begin(either)
    with Clients(stack.exporter) as clients, either.client() as admin:
        before = stack.ends("completed")
        stack.add_much()
        eventually(lambda: stack.ends("completed") > before)

        kills = 0

        def kill() -> None:
            nonlocal kills
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            kills += 1

        value = stack.exporter.metrics.value
        failed = partial(value, "bullmq_exporter_poll_errors_total")

        def succeeded() -> float:
            return value("bullmq_exporter_poll_duration_seconds_count") - failed()

        scraped, polled, failed_before = clients.pages[1], succeeded(), failed()
        with again_and_again(kill, 0.1):
            # Polls go on between the kills.
            eventually(
                lambda: (
                    kills >= 30 and clients.pages[1] > scraped + 10 and succeeded() > polled + 10
                )
            )
        stack.assert_truth(disturbed=True)
    # How often a poll is hit depends on how long it takes; but none fails that was not hit. (One
    # that is hit once goes on: see the next test.)
    assert failed() - failed_before <= kills
    assert len(stack.exporter.outages) == len(stack.exporter.lines("Redis is back"))
    assert "Traceback" not in stack.exporter.log


def test_a_connection_that_is_killed_is_opened_anew_without_an_outage(
    either: Server, begin: Begin
) -> None:
    stack = begin(either)
    polls = partial(stack.exporter.metrics.value, "bullmq_exporter_poll_duration_seconds_count")
    with Clients(stack.exporter) as clients, either.client() as admin, clients.no_outage():
        for _ in range(10):
            # The next kill after a poll has ended: none is hit twice.
            ended = polls()
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            eventually(lambda before=ended: polls() > before)
        stack.add_some()
        stack.assert_truth(disturbed=True)
    stack.assert_quiet()


def test_scripts_flushed_again_and_again_change_nothing(either: Server, begin: Begin) -> None:
    stack = begin(either)
    with Clients(stack.exporter) as clients, either.client() as admin:
        before = stack.ends("completed")
        stack.add_much()
        eventually(lambda: stack.ends("completed") > before)
        with clients.no_outage():
            with again_and_again(lambda: admin.script_flush("SYNC"), 0.002):
                time.sleep(2)
            stack.assert_truth(disturbed=True)  # BullMQ's own scripts are gone as well
    stack.assert_quiet()
