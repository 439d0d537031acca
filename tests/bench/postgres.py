"""What polls cost PostgreSQL, beside BullMQ's own exporter on the same database."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from types import SimpleNamespace
from typing import Any

from bullmq import Job
from bullmq.backends.postgres_backend import PostgresBackend
from bullmq.backends.postgres_connection import PostgresConnection
from psycopg import sql

from exporter.queues.queue import Queue
from exporter.settings import PostgresSettings
from exporter.stores.postgres.client import PostgresReader, Row
from exporter.stores.postgres.events.event_reads import EventReads, Wanted
from exporter.stores.postgres.events.follower import WRITERS
from exporter.stores.postgres.large_counts import LargeCounts
from exporter.stores.postgres.poll import Poller
from exporter.stores.postgres.schema import Schema
from tests.bench.measured import (
    BUSY_EVERY,
    Scraper,
    cpu_of,
    exporting,
    memory_of,
    peer,
    port_of,
    spread,
    table,
)
from tests.support.postgres import Database, running_postgres
from tests.support.readme import security_role

QUEUES, KEPT = 100, 10_000
# Events of two seconds in which 50 jobs a second are added, taken and finished.
NEW_EVENTS = 500
# Of the jobs that a queue keeps, each tenth has failed.
FAILED = KEPT // 10
OURS, PEER = "exporter", "peer"
BULLMQ = "BullMQ 6.7.0's `exportPrometheusMetrics`"
# Seconds: between two polls by default, between two scrapes, and between two jobs of a queue.
POLL, SCRAPE, JOB = 5.0, 15.0, 2.0
# As PostgreSQL is by default, except for the disk, which takes none of the CPU that is measured.
SERVER = (
    *("full_page_writes=on", "synchronous_commit=on", "autovacuum=on"),
    "shared_preload_libraries=pg_stat_statements",
)


@dataclass(frozen=True)
class Cost:
    """What a reader has cost in some seconds."""

    seconds: float
    postgres: float  # milliseconds of CPU of its sessions
    process: float  # milliseconds of its own CPU
    slowest: float  # milliseconds of one statement
    connections: int  # at most at once
    memory: float  # MiB

    def per_poll(self) -> float:
        """Milliseconds of PostgreSQL's CPU every 5 seconds."""
        return self.postgres * POLL / self.seconds


def postgres(rounds: int, seconds: int) -> None:
    """`seconds` is how long each reader is measured in a round."""
    costs: dict[str, list[Cost]] = {}
    finished: list[float] = []
    with running_postgres() as server:
        server.stop()
        server.start(*SERVER)
        database = server.create_database()
        _fill(database)
        [(version,)] = database.execute("SHOW server_version")
        for _ in range(rounds):
            for name, cost in (*_ours(database, seconds, finished), _theirs(database, seconds)):
                costs.setdefault(name, []).append(cost)
        rate = median(finished)
        print(f"\nPostgreSQL {version}; {rate:.0f} jobs finish a second while they move")
        _show(costs)
        asyncio.run(_explain(database))


def _fill(database: Database) -> None:
    """Jobs as Open Archiver's are; a tenth of the queues has jobs in every state."""
    database.execute(
        f"""
        CREATE EXTENSION pg_stat_statements SCHEMA public;
        {security_role(OURS, "of-the-benchmark")}
        CREATE ROLE {PEER} LOGIN SUPERUSER;
        INSERT INTO meta SELECT 'queue-' || queue, field, value
        FROM generate_series(0, {QUEUES - 1}) AS queue,
          (VALUES ('version', 'bullmq:6.7.0'), ('opts.maxLenEvents', '10000'))
            AS meta(field, value);
        INSERT INTO job (queue, id, seq, name, state, data, opts, attempts_made, attempts_started,
          return_value, failed_reason, added_at_ms, processed_at_ms, finished_at_ms)
        SELECT 'queue-' || queue, 'kept-' || number, nextval('job_seq'), 'process-mailbox',
          CASE WHEN number > {FAILED} THEN 'completed' ELSE 'failed' END::job_state,
          {_DATA}, {_OPTIONS}, 1, 1,
          CASE WHEN number > {FAILED} THEN '{{"batches": 2}}'::jsonb END,
          CASE WHEN number > {FAILED} THEN NULL ELSE 'IMAP authentication failed' END,
          {_NOW} - 7000 * number, {_NOW} - 7000 * number + 10, {_NOW} - 7000 * number + 900
        FROM generate_series(1, {KEPT}) AS number, generate_series(0, {QUEUES - 1}) AS queue;
        INSERT INTO job (queue, id, seq, name, state, data, opts, priority, added_at_ms,
          process_at_ms, processed_at_ms, locked_until_ms)
        SELECT 'queue-' || queue, state || priority || '-' || number, nextval('job_seq'),
          'process-mailbox', state::job_state, {_DATA}, {_OPTIONS}, priority, {_NOW},
          CASE WHEN state = 'delayed' THEN {_NOW} + 3600000 END,
          CASE WHEN state = 'active' THEN {_NOW} END,
          CASE WHEN state = 'active' THEN {_NOW} + 3600000 END
        FROM generate_series(0, {QUEUES - 1}, {BUSY_EVERY}) AS queue,
          (VALUES ('waiting', 0, 5), ('waiting', 1, 3), ('active', 0, 2), ('delayed', 0, 5))
            AS states(state, priority, jobs),
          generate_series(1, jobs) AS number;
        """
    )
    database.execute("VACUUM ANALYZE")


_NOW = "(extract(epoch FROM now()) * 1000)::bigint"
_DATA = """jsonb_build_object('ingestionSourceId', gen_random_uuid(),
            'sessionId', gen_random_uuid(), 'userEmail', 'user' || number || '@corp.example')"""
_OPTIONS = f"""'{{"attempts": 5, "backoff": {{"type": "exponential", "delay": 1000}},
            "removeOnComplete": {{"count": {KEPT}}},
            "removeOnFail": {{"count": {KEPT}}}}}'::jsonb"""


def _ours(database: Database, seconds: int, finished: list[float]) -> Iterator[tuple[str, Cost]]:
    url = database.url_of(OURS)
    with _Sessions(database, OURS) as sessions, exporting("", "--postgres-url", url) as exporter:
        scrape = Scraper(port_of(exporter.metrics.url))
        sessions.read_with(exporter.process.pid)
        _scrape_for(scrape, 2 * SCRAPE)
        yield "the first 30 s, in which everything is counted", sessions.cost()
        counted = scrape.text().count(b"\nbullmq_job_count{")
        assert counted == 8 * QUEUES, f"{counted} counts"
        sessions.begin()
        _scrape_for(scrape, seconds)
        yield "no jobs move", sessions.cost()
        with _jobs(database) as done:
            _scrape_for(scrape, SCRAPE)
            sessions.begin()
            before, began = len(done), time.monotonic()
            _scrape_for(scrape, seconds)
            yield "jobs finish in all queues", sessions.cost()
            finished.append((len(done) - before) / (time.monotonic() - began))


def _theirs(database: Database, seconds: int) -> tuple[str, Cost]:
    file = "../../bullmq/metrics.mjs"
    with (
        _Sessions(database, PEER) as sessions,
        peer(file, database.url_of(PEER), QUEUES) as (process, port),
    ):
        scrape = Scraper(port)
        scrape()
        sessions.read_with(process.pid)
        sessions.begin()
        _scrape_for(scrape, seconds)
        return BULLMQ, sessions.cost()


def _scrape_for(scrape: Scraper, seconds: float) -> None:
    """Scrape as Prometheus does, at once and then every 15 seconds."""
    ends = time.monotonic() + seconds
    due = time.monotonic()
    while due < ends:
        time.sleep(max(due - time.monotonic(), 0))
        scrape()
        due += SCRAPE
    time.sleep(max(ends - time.monotonic(), 0))


class _Sessions:
    """Measures the sessions of a role, also those that end meanwhile."""

    def __init__(self, database: Database, role: str) -> None:
        self._database, self._role = database, role
        self._cpu: dict[int, float] = {}
        self._connections = 0
        self._pid = os.getpid()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> _Sessions:
        self._thread.start()
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def read_with(self, pid: int) -> None:
        """The process that they belong to."""
        self._pid = pid
        self._process = 0.0

    def begin(self) -> None:
        self._look()
        self._database.execute("SELECT public.pg_stat_statements_reset()")
        self._connections = 0
        self._began = time.monotonic()
        self._postgres, self._process = sum(self._cpu.values()), cpu_of(self._pid)

    def cost(self) -> Cost:
        self._look()
        [(slowest,)] = self._database.execute(
            "SELECT coalesce(max(max_exec_time), 0) FROM public.pg_stat_statements "
            f"WHERE userid = '{self._role}'::regrole"
        )
        return Cost(
            seconds=time.monotonic() - self._began,
            postgres=1000 * (sum(self._cpu.values()) - self._postgres),
            process=1000 * (cpu_of(self._pid) - self._process),
            slowest=slowest,
            connections=self._connections,
            memory=memory_of(self._pid),
        )

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            self._look()

    def _look(self) -> None:
        pids = self._database.execute(
            f"SELECT pid FROM pg_stat_activity WHERE usename = '{self._role}'"
        )
        self._connections = max(self._connections, len(pids))
        for (pid,) in pids:
            # A session that has just ended used nothing since the last look.
            self._cpu[pid] = cpu_of(pid) or self._cpu.get(pid, 0.0)


@contextmanager
def _jobs(database: Database) -> Iterator[list[None]]:
    """Jobs finish in all queues meanwhile, and as many are removed; one entry for each."""
    done: list[None] = []
    ended = threading.Event()
    with ThreadPoolExecutor() as threads:
        working = threads.submit(asyncio.run, _finish_jobs(database, done, ended))
        try:
            yield done
        finally:
            ended.set()
            working.result()


async def _finish_jobs(database: Database, done: list[None], ended: threading.Event) -> None:
    """By BullMQ's Python client: its connection is one for all queues here."""
    connection = PostgresConnection({"connection": database.url})
    base = PostgresBackend("queue-0", connection)
    due = time.monotonic()
    while not ended.is_set():
        for number in range(QUEUES):
            backend = base.forQueue(f"queue-{number}")
            queue: Any = SimpleNamespace(
                name=backend.queue_name, qualifiedName=backend.queue_name, backend=backend, opts={}
            )
            job = Job(queue, "process-mailbox", {"userEmail": "user@corp.example"})
            await backend.addJob(job)
            _, job.id, *_ = await backend.moveToActive("token", {})
            keep = {"count": KEPT - FAILED}
            await backend.moveToCompleted(job, {"batches": 2}, keep, "token", fetch_next=False)
            done.append(None)
            due += JOB / QUEUES
            await asyncio.sleep(due - time.monotonic())
    await connection.close()


def _show(costs: dict[str, list[Cost]]) -> None:
    rows = [
        (
            name if name == BULLMQ else f"this project: {name}",
            f"{median(each.per_poll() for each in some):,.1f}",
            f"{max(each.slowest for each in some):,.1f}",
            str(max(each.connections for each in some)),
            f"{median(each.process * POLL / each.seconds for each in some):,.1f}",
            f"{median(each.memory for each in some):,.0f}",
        )
        for name, some in costs.items()
    ]
    table(
        f"{QUEUES * KEPT:,} finished jobs in {QUEUES} queues; polled every 5 s, scraped every 15 s",
        (
            *("", "CPU of PostgreSQL, ms every 5 s", "slowest statement, ms", "connections"),
            *("CPU of the process, ms every 5 s", "MiB"),
        ),
        rows,
    )
    print("\nRatios of each round to BullMQ's (median, least to most), PostgreSQL's CPU over time:")
    for name, some in costs.items():
        if name != BULLMQ:
            pairs = zip(some, costs[BULLMQ], strict=True)
            ratios = [ours.per_poll() / theirs.per_poll() for ours, theirs in pairs]
            print(f"- {name}: {spread(ratios, 4)}")
    print(f"\nLoad of the machine: {os.getloadavg()[0]:.1f}", flush=True)


class _Explaining(PostgresReader):
    """Explains what it reads."""

    def __init__(self, settings: PostgresSettings) -> None:
        super().__init__(settings, connections=1)
        self.plans: list[str] = []

    async def read_together(
        self, statements: Sequence[sql.Composable], **values: Any
    ) -> list[list[Row]]:
        explain = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) ")
        for plan in await super().read_together([explain + each for each in statements], **values):
            self.plans.append("\n".join(line for (line,) in plan))
        return await super().read_together(statements, **values)


async def _explain(database: Database) -> None:
    """How PostgreSQL executes a poll's statements, those of a first poll, where all is counted; and
    those of a round of events, of which there are as many as jobs make in two seconds.
    """
    reader = _Explaining(
        PostgresSettings(
            host="127.0.0.1",
            port=database.server.port,
            database=database.name,
            user=OURS,
            tls=False,
        )
    )
    schema = Schema(reader)
    await schema.check()
    reader.plans.clear()
    poller = Poller(reader, schema, LargeCounts(reader), max_schedulers=100)
    queues = [Queue.named("bullmq", f"queue-{number}") for number in range(QUEUES)]
    await poller.poll(queues, configured=frozenset())
    plans = reader.plans[:3]
    reader.plans.clear()
    [(newest,)] = database.execute("SELECT max(id) FROM event")
    await reader.read(WRITERS)
    await EventReads(reader).read([Wanted(queue, newest - NEW_EVENTS, ()) for queue in queues])
    await reader.close()
    for plan in [*plans, *reader.plans]:
        first, buffers, *rest = plan.splitlines()
        scans = [line for line in rest if " Scan " in line or line.endswith(" ms")]
        print("\n```", first, buffers, *scans, "```", sep="\n", flush=True)
