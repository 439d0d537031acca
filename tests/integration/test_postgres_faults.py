"""What is exposed, answered and said while PostgreSQL fails, and that it ends by itself."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from exporter.settings import PostgresSettings
from exporter.stores.postgres import standby as standbys
from exporter.stores.postgres.client import PostgresReader
from exporter.stores.postgres.errors import PostgresUnavailable, ReplayConflict
from exporter.stores.postgres.large_counts import LargeCounts
from exporter.stores.postgres.poll import Poller
from exporter.stores.postgres.schema import Schema
from tests.support.exporters import Exporter, StartExporter
from tests.support.ports import free_port
from tests.support.postgres import BY_PASSWORD, EACH_OWN, Database, PostgresServer, migrate
from tests.support.proxy import Proxy
from tests.support.readme import security_role
from tests.support.waiting import eventually

PASSWORD = "a-password-of-the-tests"
QUEUE = "/v1/jobs/queues/mail?status=waiting"


class Watched:
    """An exporter of a database in which the queue `mail` has waiting jobs, and a time limit of
    1 second.
    """

    def __init__(self, exporter: Exporter, database: Database) -> None:
        self.exporter, self.database = exporter, database
        self.outages = 0

    @property
    def jobs(self) -> dict[str, float]:
        samples = self.exporter.metrics.samples("bullmq_job_count", queue="mail")
        return {state: number for (state,), number in samples.items() if number}

    @property
    def added(self) -> float:
        """How many jobs were counted as they were added, since it was started."""
        return sum(self.exporter.metrics.samples("bullmq_job_added_total", queue="mail").values())

    @contextmanager
    def outage(self, *reasons: str, api: bool = True) -> Iterator[None]:
        """In this block PostgreSQL cannot be read, for these reasons alone, each in one line; and
        afterwards it can be.
        """
        self.wait_until_down(api=api)
        yield
        self.wait_until_back()
        reported = self.exporter.outages[self.outages :]
        self.outages += len(reported)
        assert 1 <= len(reported[0]) <= len(reasons), reported
        for reason in (reason for outage in reported for reason in outage):
            assert any(re.search(each, reason) for each in reasons), reason

    def wait_until_down(self, *, api: bool = True) -> None:
        """Nothing is exposed of any queue, and clients get that answer."""
        eventually(lambda: self.exporter.metrics.value("bullmq_up") == 0)
        families = self.exporter.metrics.families().values()
        samples = [sample for family in families for sample in family.samples]
        assert [sample for sample in samples if "queue" in sample.labels] == []
        assert self.exporter.metrics.get("/-/healthy").status == 200
        assert self.exporter.metrics.get("/-/ready").status == 503
        if api:
            answer = eventually(self._refusal)
            assert answer.headers["Retry-After"]
            assert "PostgreSQL" in answer.json["message"]

    def wait_until_back(self) -> None:
        eventually(lambda: self.exporter.metrics.value("bullmq_up") == 1)
        [(waiting,)] = self.database.execute("SELECT count(*) FROM job WHERE queue = 'mail'")
        eventually(lambda: self.jobs == {"waiting": waiting})
        # The API reads by itself, and may be a moment later.
        answer = eventually(lambda: (got := self.exporter.api.get(QUEUE)).status == 200 and got)
        assert answer.json["pagination"]["totalJobs"] == waiting

    def assert_no_outage(self) -> None:
        """Some polls later all is as it should be."""
        polls = self.exporter.metrics.value("bullmq_exporter_poll_duration_seconds_count")
        eventually(
            lambda: (
                self.exporter.metrics.value("bullmq_exporter_poll_duration_seconds_count")
                > polls + 3
            )
        )
        self.wait_until_back()
        assert len(self.exporter.outages) == self.outages

    def end(self) -> None:
        """It has neither failed nor said a secret."""
        assert self.exporter.terminate() == 0
        for never in ("Traceback", "never retrieved", '"level": "critical"', PASSWORD):
            assert never not in self.exporter.log

    def _refusal(self) -> Any:
        answer = self.exporter.api.get(QUEUE)
        assert answer.status in (200, 503), answer.text
        return answer.status == 503 and answer


Watch = Callable[..., Watched]


@pytest.fixture
def watch(start_exporter: StartExporter) -> Watch:
    def start(database: Database, url: str | None = None, **variables: str) -> Watched:
        database.add_jobs("mail", 3)
        timeout = {"EXPORTER_POSTGRES_TIMEOUT": "1"}
        exporter = start_exporter(
            "", "--postgres-url", url or database.url, **(timeout | variables)
        )
        watched = Watched(exporter, database)
        watched.wait_until_back()
        return watched

    return start


@pytest.fixture
def role(database: Database) -> str:
    """The role of SECURITY.md, which needs its password."""
    name = f"of_{database.name}"
    database.execute(security_role(name, PASSWORD))
    database.execute(
        f"DO $$ BEGIN CREATE ROLE {BY_PASSWORD}; EXCEPTION WHEN duplicate_object THEN END $$;"
        f"GRANT {BY_PASSWORD} TO {name}"
    )
    return name


@EACH_OWN
def test_a_server_that_is_killed_restarted_or_full_is_read_again(
    own_postgres: PostgresServer, watch: Watch
) -> None:
    database = own_postgres.create_database()
    database.execute(security_role("exporter", PASSWORD))
    watched = watch(database, database.url_of("exporter"))
    starting = "the database system is (starting up|not yet accepting|in recovery|shutting down)"
    expected = ("Connection refused", "closed the connection|terminating", starting)
    # What is committed reaches the disk a little later in the tests' servers.
    database.execute("CHECKPOINT")
    own_postgres.stop(signal.SIGKILL)
    with watched.outage(*expected):
        own_postgres.start()
    own_postgres.stop()  # in order: sessions are ended
    with watched.outage(*expected):
        own_postgres.start("max_connections=6", "superuser_reserved_connections=1")
    database.execute("CREATE ROLE busy LOGIN")
    sessions: list[psycopg.Connection] = []
    with ExitStack() as stack:

        def takes_all() -> bool:
            """Whether the exporter has no connection and finds no slot for one any more."""
            database.end_connections()
            with suppress(psycopg.OperationalError):
                while True:
                    sessions.append(stack.enter_context(psycopg.connect(database.url_of("busy"))))
            return len(sessions) == 6 - 1  # max_connections, but for the superuser's

        eventually(takes_all)
        full = "(too many clients|slots are reserved).*raise .*max_connections"
        with watched.outage(full, "terminating|closed"):
            stack.close()
    watched.end()


def test_a_network_that_is_cut_or_slow_is_an_outage_until_it_works(
    database: Database, watch: Watch
) -> None:
    with Proxy(database.server.port) as proxy:
        by_proxy = database.url.replace(f":{database.server.port}/", f":{proxy.port}/")
        watched = watch(database, by_proxy)

        proxy.delay = 0.02
        watched.assert_no_outage()
        proxy.delay = 0.0

        proxy.switch(free_port())
        with watched.outage("cannot be reached", "closed the connection"):
            proxy.switch(database.server.port)
        # Accepted, and never answered; then only the beginning of each answer comes.
        unanswered = (
            *("did not answer within 1 s", "did not accept a connection within 1 s"),
            "closed the connection",  # when that is cut at the end
        )
        proxy.silent = True
        with watched.outage(*unanswered):
            proxy.silent = False
            proxy.cut()
        proxy.most, proxy.stalls = 300, True
        with watched.outage(*unanswered):
            proxy.most = None
            proxy.cut()
        proxy.most, proxy.stalls = 300, False
        with watched.outage("cannot be r", "closed the connection|reset"):
            proxy.most = None
        proxy.rate = 250.0
        with watched.outage(*unanswered):
            proxy.rate = None
        proxy.delay = 1.5
        with watched.outage(*unanswered):
            proxy.delay = 0.0
            proxy.cut()
        watched.end()


def test_rights_that_are_withdrawn_are_named_until_they_are_given_back(
    database: Database, role: str, watch: Watch
) -> None:
    watched = watch(database, database.url_of(role, PASSWORD))
    for right, said in (
        ("SELECT ON bullmq.job", "table job of schema bullmq may not be read; GRANT SELECT ON"),
        ("SELECT ON bullmq.meta", "table meta of schema bullmq may not be read"),
        ("USAGE ON SCHEMA bullmq", "schema bullmq may not be used; GRANT USAGE ON SCHEMA"),
    ):
        database.execute(f"REVOKE {right} FROM {role}")
        with watched.outage(said):
            database.execute(f"GRANT {right} TO {role}")
    for changed, undone, said in (
        ("NOLOGIN", "LOGIN", "is not permitted to log in; see postgres.user"),
        ("CONNECTION LIMIT 0", "CONNECTION LIMIT 5", "too many connections.*raise the CONNECTION"),
    ):
        database.execute(f"ALTER ROLE {role} {changed}")
        # Those that there are go on.
        watched.assert_no_outage()
        database.end_connections()
        with watched.outage(said, "terminating connection"):
            database.execute(f"ALTER ROLE {role} {undone}")
    watched.end()


def test_a_password_that_changes_is_read_from_its_file_without_a_restart(
    database: Database, role: str, watch: Watch, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    watched = watch(database, database.url_of(role), EXPORTER_POSTGRES_PASSWORD_FILE=str(file))
    # The file first, as by an operator who rotates it: nothing is noticed.
    file.write_text(f"{PASSWORD}-2\n")
    database.execute(f"ALTER ROLE {role} PASSWORD '{PASSWORD}-2'")
    database.end_connections()
    eventually(database.connections)
    watched.wait_until_back()
    watched.outages = len(watched.exporter.outages)

    database.execute(f"ALTER ROLE {role} PASSWORD '{PASSWORD}-3'")
    watched.assert_no_outage()
    database.end_connections()
    said = r"password authentication failed.*see postgres\.user .*postgres\.password"
    with watched.outage(said, "terminating connection"):
        file.write_text(f"{PASSWORD}-3")
    watched.end()


def test_a_table_that_is_locked_is_named_and_harms_nobody_else(
    database: Database, watch: Watch
) -> None:
    watched = watch(database)
    with psycopg.connect(database.url) as session:
        session.execute("LOCK TABLE bullmq.job IN ACCESS EXCLUSIVE MODE")
        with watched.outage("a table is locked by another session.*pg_locks"):
            assert watched.exporter.api.get(QUEUE).json["message"].endswith("a table is locked")
            session.rollback()
    watched.end()


def test_a_count_that_takes_too_long_is_absent_alone(
    database: Database, start_exporter: StartExporter
) -> None:
    database.add_jobs("mail", 2)
    # To read a completed job takes 0.3 s from now on, as where its pages are far away.
    database.execute(
        """
        INSERT INTO job (queue, id, seq, name, state, added_at_ms, finished_at_ms)
        VALUES ('mail', 'x', 9, 'send', 'completed', 1, 1);
        ALTER TABLE job RENAME TO job_rows;
        CREATE VIEW job AS SELECT * FROM job_rows
        WHERE state <> 'completed' OR pg_sleep(0.3) IS NOT NULL
        """
    )
    exporter = start_exporter("", "--postgres-url", database.url)
    samples = eventually(lambda: exporter.metrics.samples("bullmq_job_count", queue="mail"))
    assert ("waiting",) in samples
    assert ("completed",) not in samples
    assert exporter.metrics.value("bullmq_up") == 1
    [line] = exporter.lines("value unreadable; omitted")
    assert (line["queue"], line["value"]) == ("mail", "completed")
    assert exporter.outages == []


def test_a_schema_may_be_migrated_dropped_and_made_anew(
    own_postgres: PostgresServer, watch: Watch
) -> None:
    database = own_postgres.create_database("of_schemas")
    watched = watch(database)
    database.execute(
        "ALTER TABLE job ADD COLUMN later text; "
        "INSERT INTO migration (version, name, min_client_version) VALUES (98, 'later', 6)"
    )
    watched.assert_no_outage()
    database.execute(
        "BEGIN; ALTER TABLE job RENAME COLUMN priority TO rank; "
        "INSERT INTO migration (version, name, min_client_version) VALUES (99, 'next', 7); COMMIT"
    )
    with watched.outage(r"\(migration 99\) is for BullMQ 7 and later.*update the exporter"):
        database.execute(
            "BEGIN; ALTER TABLE job RENAME COLUMN rank TO priority; "
            "DELETE FROM migration WHERE version = 99; COMMIT"
        )

    database.execute("DROP SCHEMA bullmq CASCADE")
    incomplete = "has no table|no migration of BullMQ has run"  # while they run
    with watched.outage("no schema bullmq; has the application run BullMQ's", incomplete):
        migrate(database)
        database.add_jobs("mail", 5)

    postgres = Database(own_postgres, "postgres")
    postgres.execute(f"DROP DATABASE {database.name} WITH (FORCE)")
    missing = f'database "{database.name}" does not exist; see postgres.database'
    with watched.outage(missing, "terminating connection|closed the connection"):
        own_postgres.create_database(database.name).add_jobs("mail", 4)
    watched.end()


def test_large_counts_of_a_schema_made_anew_are_not_those_of_the_old_one(
    database: Database, watch: Watch
) -> None:
    finished = """
        INSERT INTO job (queue, id, seq, name, state, added_at_ms, finished_at_ms)
        SELECT 'done', i::text, i, 'send', 'completed', i, i FROM generate_series(1, {}) AS i;
        INSERT INTO event (queue, event, data, created_at_ms) VALUES ('done', 'cleaned', '{{}}', 1)
    """
    database.execute(finished.format(20))
    watched = watch(database)

    def completed() -> float | None:
        done = {"queue": "done", "state": "completed"}
        number: float | None = watched.exporter.metrics.value("bullmq_job_count", **done)
        return number

    eventually(lambda: completed() == 20)
    # No poll sees it missing, and the queue's last event has the same id.
    database.execute(
        "BEGIN; ALTER TABLE job RENAME TO old_job; CREATE TABLE job (LIKE old_job INCLUDING ALL); "
        "INSERT INTO job SELECT * FROM old_job WHERE queue <> 'done' OR seq <= 7; COMMIT"
    )
    # Without events a queue is counted again after a minute.
    eventually(lambda: completed() == 7, within=50)
    watched.end()


def test_texts_of_any_encoding_are_shown_where_the_database_knows_none(
    shared_postgres: PostgresServer, watch: Watch
) -> None:
    database = shared_postgres.create_ascii_database()
    with psycopg.connect(database.url, autocommit=True, client_encoding="SQL_ASCII") as session:
        session.execute("SET search_path = bullmq")
        session.execute(
            rb"""
            INSERT INTO meta VALUES (E'gr\xfc\xdfe', 'version', E'\xff');
            INSERT INTO job (queue, id, seq, name, state, data, added_at_ms, finished_at_ms,
              failed_reason, processed_by)
            VALUES (E'gr\xfc\xdfe', E'\xe4', 1, E'\xf6', 'failed', E'{"text": "\xe9"}', 1, 2,
              E'too sl\xf6w', E'\xfc');
            INSERT INTO job_log VALUES (E'gr\xfc\xdfe', E'\xe4', 1, E'l\xf6g');
            INSERT INTO scheduler (queue, scheduler_id, next_run_ms, name)
            VALUES (E'gr\xfc\xdfe', E'n\xe4chtlich', 1, E'\xf6');
            """
        )
    watched = watch(database)
    exporter, name = watched.exporter, r"gr\xfc\xdfe"
    eventually(lambda: exporter.metrics.value("bullmq_job_count", queue=name, state="failed") == 1)
    path = r"/v1/jobs/queues/gr%5Cxfc%5Cxdfe"
    [job] = exporter.api.get(f"{path}?status=failed").json["jobs"]
    assert (job["id"], job["name"], job["failedReason"]) == (r"\xe4", r"\xf6", r"too sl\xf6w")
    for spelling in (job["encodedId"], "%5Cxe4"):
        found = exporter.api.get(f"{path}/jobs/{spelling}").json["job"]
        assert (found["worker"], found["logs"]["lines"]) == (r"\xfc", [r"l\xf6g"])
        assert found["data"] == r'{"text": "\xe9"}'
    with psycopg.connect(database.url, autocommit=True, client_encoding="SQL_ASCII") as session:
        session.execute("SET search_path = bullmq")
        session.execute(
            rb"""
            SELECT publish_event(E'gr\xfc\xdfe', 'failed', jsonb_build_object(
              'jobId', E'\xe4', 'prev', 'active', 'failedReason', E'too sl\xf6w'))
            """
        )
    counted = {"queue": name, "name": r"\xf6"}
    eventually(lambda: exporter.metrics.value("bullmq_job_failed_total", **counted) == 1)
    [scheduler] = exporter.api.get(f"{path}/schedulers").json["schedulers"]
    assert scheduler["key"] == r"n\xe4chtlich"
    assert exporter.metrics.value("bullmq_queue_schedulers", queue=name) == 1
    assert set(exporter.metrics.samples("bullmq_exporter_collector_success").values()) == {1}
    assert exporter.api.get("/v1/jobs/queues/%FF").status == 404
    assert exporter.outages == []
    watched.end()


def test_bytes_that_are_not_utf_8_are_nothing_that_a_database_in_utf_8_has(
    database: Database, watch: Watch
) -> None:
    watched = watch(database)
    for path in ("/v1/jobs/queues/%FF", r"/v1/jobs/queues/mail/jobs/%5Cxff"):
        assert watched.exporter.api.get(path).status == 404, path
    watched.end()


@EACH_OWN
def test_a_standby_is_read_while_it_is_up_to_date_and_once_it_is_promoted(
    own_postgres: PostgresServer, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pair of servers for all that may happen to it."""
    monkeypatch.setattr(standbys, "MAX_LAG_SECONDS", 0.1)
    database = own_postgres.create_database()
    with (
        own_postgres.running_standby() as server,
        Proxy(own_postgres.port) as proxy,
    ):
        standby = Database(server, database.name)
        watched = watch(database, database.url.replace(f":{own_postgres.port}/", f":{proxy.port}/"))
        eventually(lambda: standby.execute("SELECT count(*) FROM job") == [(3,)])
        asyncio.run(_conflict(database, standby))

        # The primary is gone, and the standby is promoted. Then the address leads there.
        database.add_jobs("mail", 4)
        eventually(lambda: watched.added == 4)
        eventually(lambda: standby.execute("SELECT count(*) FROM job") == [(7,)])
        watched.database = standby
        asyncio.run(_lag(database, standby))
        with watched.outage("cannot be reached", "closed the connection|terminating"):
            proxy.switch(server.port)
        standby.add_jobs("mail", 2)
        eventually(lambda: watched.jobs == {"waiting": 9})
        eventually(lambda: watched.added == 6)
        # A promoted server leaves some ids out, which are no events.
        missed = watched.exporter.metrics.samples("bullmq_exporter_events_missed_total")
        assert sum(missed.values()) == 0
        watched.end()


# Takes a minute while there are rows of `slow`.
SLOW = sql.SQL(
    "SELECT count(*), (SELECT max(pg_sleep(60)::text) FROM meta WHERE queue = 'slow') FROM job"
)


def _reader(database: Database, statement_ms: int = 200) -> PostgresReader:
    settings = PostgresSettings(
        host="127.0.0.1",
        port=database.server.port,
        database=database.name,
        user="postgres",
        password=SecretStr(PASSWORD),
        tls=False,
        timeout=60,
    )
    return PostgresReader(settings, connections=1, statement_ms=statement_ms)


async def _lag(primary: Database, standby: Database) -> None:
    """A standby that is behind for longer than it may be is not read."""
    reader = _reader(standby)
    poller = Poller(reader, Schema(reader), LargeCounts(reader), max_schedulers=0)

    async def refused() -> str | None:
        try:
            await poller.poll((), configured=frozenset())
        except PostgresUnavailable as error:
            return str(error)
        return None

    async def until(expected: str | None) -> None:
        deadline = time.monotonic() + 180
        while (said := await refused()) is None or expected is None or expected not in said:
            if said is None and expected is None:
                return
            assert time.monotonic() < deadline, said
            await asyncio.sleep(0.05)

    await until(None)
    standby.execute("SELECT pg_wal_replay_pause()")
    eventually(lambda: standby.execute("SELECT pg_get_wal_replay_pause_state()") == [("paused",)])
    # Nothing is missing while the primary rests.
    await asyncio.sleep(0.3)
    assert await refused() is None
    primary.execute("SELECT publish_event('mail', 'paused', '{}')")
    await until("does not replay what it has received")
    standby.execute("SELECT pg_wal_replay_resume()")
    await until(None)
    primary.server.stop(signal.SIGKILL)
    await until("has lost its connection to the primary")
    standby.execute("SELECT pg_promote()")
    await until(None)
    await reader.close()


async def _conflict(primary: Database, standby: Database) -> None:
    """A read that a standby ends is tried once more."""
    standby.execute("ALTER SYSTEM SET max_standby_streaming_delay = 0")
    standby.execute("SELECT pg_reload_conf()")
    reader = _reader(standby, statement_ms=60_000)

    async def read_through(conflicts: int) -> Any:
        """Rows that are read slowly until so many conflicts have been."""
        rows = "".join(f"INSERT INTO meta VALUES ('slow', '{n}');" for n in range(conflicts))
        await asyncio.to_thread(primary.execute, f"BEGIN; {rows} COMMIT")
        written = f"SELECT count(*) = {conflicts} FROM meta WHERE queue = 'slow'"
        await asyncio.to_thread(eventually, lambda: standby.execute(written) == [(True,)])
        reading = asyncio.create_task(reader.read(SLOW))
        seen: set[Any] = set()

        def runs() -> bool:
            rows = standby.execute(
                "SELECT pid, query_start FROM pg_stat_activity WHERE state = 'active' "
                "AND wait_event = 'PgSleep'"
            )
            new = set(rows) - seen
            seen.update(rows)
            return bool(new)

        for number in range(conflicts):
            await asyncio.to_thread(eventually, runs)
            # Whoever reads next does not see the row.
            primary.execute(f"DELETE FROM meta WHERE queue = 'slow' AND field = '{number}'")
            primary.execute("BEGIN; LOCK TABLE job IN ACCESS EXCLUSIVE MODE; COMMIT")
        return await reading

    assert await read_through(1) == [(3, None)]
    with pytest.raises(ReplayConflict, match=r"ends our reads: .*; see hot_standby_feedback"):
        await read_through(2)
    await reader.close()
