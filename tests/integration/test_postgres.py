"""Queues in PostgreSQL: rights, requests, faults, and what is said where they cannot be read."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import trustme

from tests.support.bullmq import StartWork, Work
from tests.support.exporters import StartExporter, run_exporter
from tests.support.postgres import EACH_DATABASE, Database, PostgresServer, pooled
from tests.support.readme import security_role
from tests.support.servers import Server
from tests.support.waiting import eventually

PASSWORD = "a-password-of-the-tests"


def check(url: str, *flags: str, **variables: str) -> tuple[int, str]:
    """The exit code of --check, and what it says."""
    result = run_exporter("--check", "--postgres-url", url, *flags, **variables)
    return result.returncode, result.stdout + result.stderr


@pytest.fixture
def work(database: Database, start_work: StartWork) -> Work:
    started: Work = start_work("bullmq6", database.url)
    return started


@pytest.fixture
def role(database: Database) -> str:
    """The role of SECURITY.md, by a name of its own: a server's databases share their roles."""
    name = f"of_{database.name}"
    database.execute(security_role(name, PASSWORD))
    return name


def counts(exporter: Any, queue: str) -> dict[str, float]:
    samples = exporter.metrics.samples("bullmq_job_count", queue=queue)
    return {state: number for (state,), number in samples.items() if number}


def _polls(exporter: Any) -> float:
    number: float = exporter.metrics.value("bullmq_exporter_poll_duration_seconds_count")
    return number


@EACH_DATABASE
def test_the_role_of_the_documents_is_enough_and_nothing_is_written(
    database: Database, work: Work, role: str, start_exporter: StartExporter
) -> None:
    work.add("mail", "send", 3, {})
    work.work("sync", {})
    url = database.url_of(role, PASSWORD)
    exporter = start_exporter("", "--postgres-url", url)

    eventually(lambda: counts(exporter, "mail") == {"waiting": 3})
    # Those of another role.
    eventually(lambda: exporter.metrics.value("bullmq_queue_workers", queue="sync") == 1)
    assert exporter.metrics.value("bullmq_queue_workers", queue="mail") == 0
    collected = exporter.metrics.samples("bullmq_exporter_collector_success")
    assert collected == {("workers",): 1, ("retention",): 1, ("schedulers",): 1}
    of_role = f"FROM pg_stat_activity WHERE usename = '{role}'"
    [(connections,)] = database.execute(f"SELECT count(*) {of_role}")
    assert 1 <= connections <= 3
    for path in ("", "/mail", "/mail/failures", "/mail/schedulers", "/mail?text=send"):
        assert exporter.api.get(f"/v1/jobs/queues{path}").status == 200
    # Whatever it would try: its transactions cannot write.
    with pytest.raises(Exception, match="read-only transaction"):
        database.execute("INSERT INTO meta VALUES ('mail', 'paused', '1')", url)

    work.close()
    eventually(lambda: exporter.metrics.value("bullmq_queue_workers", queue="sync") == 0)
    writes = (
        "SELECT tup_inserted, tup_updated, tup_deleted FROM pg_stat_database "
        "WHERE datname = current_database()"
    )
    before, polls = database.execute(writes), _polls(exporter)
    eventually(lambda: _polls(exporter) > polls + 5)
    assert exporter.api.get("/v1/jobs/queues/mail").status == 200
    exporter.terminate()  # whose sessions report what they have done when they end
    assert database.execute(writes) == before


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("REVOKE USAGE ON SCHEMA bullmq FROM exporter", "GRANT USAGE ON SCHEMA bullmq"),
        ("REVOKE SELECT ON bullmq.job FROM exporter", "table job of schema bullmq may not be read"),
        ("ALTER ROLE exporter PASSWORD 'x' NOLOGIN", "not permitted to log in"),
        ("DELETE FROM bullmq.migration", "no migration of BullMQ has run in schema bullmq"),
        (
            "UPDATE bullmq.migration SET min_client_version = 7",
            "is for BullMQ 7 and later, this exporter knows 6; update the exporter",
        ),
        ("ALTER SCHEMA bullmq RENAME TO jobs", "BullMQ's tables are in schema jobs"),
        ("DROP TABLE bullmq.scheduler", "schema bullmq has no table scheduler"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    database: Database, role: str, broken: str, said: str
) -> None:
    database.execute(broken.replace("exporter", role))
    code, text = check(database.url_of(role, PASSWORD))
    assert code == 2
    assert said in text
    assert text.count("\n") == 1
    assert PASSWORD not in text


def test_where_nothing_answers_the_setting_is_named(database: Database) -> None:
    code, text = check(database.url.replace(database.name, "missing"))
    assert code == 2
    assert 'database "missing" does not exist; see postgres.database' in text
    code, text = check(database.url.replace("?sslmode=disable", ""))
    assert code == 2
    assert "does not support SSL" in text
    assert "see postgres.tls (EXPORTER_POSTGRES_TLS)" in text
    code, text = check(database.url)
    assert code == 1
    assert "no BullMQ queue found: in schema bullmq of PostgreSQL at" in text


def test_a_flow_and_a_failed_job_are_shown_in_full(
    database: Database, work: Work, start_exporter: StartExporter
) -> None:
    work.add("mail", "logs", 1, {"attempts": 1, "jobId": "a b/c", "priority": 2})
    work.work("mail", {})
    work.settle()
    flow = {
        "name": "parent",
        "queueName": "flows",
        "children": [{"name": "child", "queueName": "children", "data": {"n": 1}}],
    }
    work.flow(flow)
    exporter = start_exporter("", "--postgres-url", database.url)
    eventually(lambda: counts(exporter, "flows") == {"waiting-children": 1})

    job = exporter.api.get(f"/v1/jobs/queues/mail/jobs/{quote('a b/c', safe='')}").json["job"]
    assert job["failedReason"] == "in the middle"
    assert job["progress"] == {"done": 40, "token": "secret-progress"}
    assert (job["state"], job["priority"], job["options"]["attempts"]) == ("failed", 2, 1)
    failures = exporter.api.get("/v1/jobs/queues/mail/failures").json
    assert (failures["failed"], failures["complete"]) == (1, True)
    found = exporter.api.get("/v1/jobs/queues/mail?status=failed&text=middle").json
    assert [each["id"] for each in found["jobs"]] == ["a b/c"]

    [parent] = exporter.api.get("/v1/jobs/queues/flows?status=waiting-children").json["jobs"]
    parent = exporter.api.get(f"/v1/jobs/queues/flows/jobs/{parent['id']}").json["job"]
    [child] = parent["children"]["jobs"]
    assert (child["queue"], child["state"]) == ("children", "waiting")
    child = exporter.api.get(f"/v1/jobs/queues/children/jobs/{child['id']}").json["job"]
    assert child["parent"]["queue"] == "flows"
    assert exporter.api.get("/v1/jobs/queues/children/jobs/none").status == 404
    assert exporter.api.get("/v1/jobs/queues/none").status == 404
    assert exporter.api.get("/v1/jobs/queues/children/jobs/%00").status == 404


@EACH_DATABASE
def test_ages_limits_schedulers_and_retention_are_exposed(
    database: Database, work: Work, start_exporter: StartExporter
) -> None:
    work.add("mail", "send", 2, {"removeOnFail": {"count": 5}})
    work.add("mail", "later", 1, {"delay": 3_600_000})
    work.call("mail", "setGlobalConcurrency", 4)
    work.call("mail", "setGlobalRateLimit", 10, 60_000)
    work.call("mail", "upsertJobScheduler", "nightly", {"pattern": "0 3 * * *", "tz": "UTC"}, {})
    exporter = start_exporter("", "--postgres-url", database.url)
    value = exporter.metrics.value
    eventually(lambda: value("bullmq_queue_schedulers", queue="mail") == 1)

    [(added, due)] = database.execute(
        "SELECT min(added_at_ms) FILTER (WHERE state = 'waiting'), "
        "min(process_at_ms) FILTER (WHERE name = 'later') FROM job"
    )
    oldest = value("bullmq_queue_oldest_waiting_timestamp_seconds", queue="mail")
    assert oldest == added / 1000
    [(next_delayed,)] = database.execute("SELECT min(process_at_ms) FROM job")
    assert value("bullmq_queue_next_delayed_timestamp_seconds", queue="mail") == (
        next_delayed / 1000
    )
    assert due / 1000 > time.time()
    assert value("bullmq_queue_concurrency_limit", queue="mail") == 4
    assert value("bullmq_queue_rate_limit_max", queue="mail") == 10
    assert value("bullmq_queue_rate_limit_duration_seconds", queue="mail") == 60
    info = {"queue": "mail", "scheduler": "nightly", "pattern": "0 3 * * *", "tz": "UTC"}
    eventually(lambda: value("bullmq_scheduler_info", **info) == 1)
    [scheduler] = exporter.api.get("/v1/jobs/queues/mail/schedulers").json["schedulers"]
    assert scheduler["pattern"] == "0 3 * * *"
    # Nothing of what is not read there.
    text = exporter.metrics.get("/metrics").text
    for absent in ("queue_missing_jobs", "queue_clock_offset_seconds", "worker_heartbeat"):
        assert f"\nbullmq_{absent}" not in text


@EACH_DATABASE
def test_large_counts_are_counted_in_turn(
    database: Database, start_exporter: StartExporter
) -> None:
    database.execute(
        """
        INSERT INTO meta VALUES ('mail', 'version', 'bullmq:6.7.0');
        INSERT INTO job (queue, id, seq, name, state, added_at_ms, finished_at_ms, priority)
        SELECT 'mail', i::text, i, 'send', (CASE WHEN i % 3 = 0 THEN 'waiting' ELSE 'completed' END)
          ::job_state, i, i, CASE WHEN i % 3 = 0 THEN 1 ELSE 0 END
        FROM generate_series(1, 9000) AS i
        """
    )
    exporter = start_exporter("", "--postgres-url", database.url)
    eventually(lambda: counts(exporter, "mail") == {"completed": 6000, "prioritized": 3000})
    answer = exporter.api.get("/v1/jobs/queues/mail?status=completed&page=3&limit=1000").json
    assert answer["pagination"]["totalJobs"] == 6000
    assert [answer["jobs"][at]["timestamp"] for at in (0, -1)] == [3001, 4499]
    database.execute(
        "DELETE FROM job WHERE finished_at_ms <= 3000 AND state = 'completed'; "
        "SELECT publish_event('mail', 'cleaned', '{}')"
    )
    eventually(lambda: counts(exporter, "mail") == {"completed": 4000, "prioritized": 3000})


def test_an_outage_ends_when_the_server_is_back(
    own_postgres: PostgresServer, start_exporter: StartExporter, start_work: StartWork
) -> None:
    database = own_postgres.create_database()
    work = start_work("bullmq6", database.url)
    work.add("mail", "send", 2, {})
    exporter = start_exporter("", "--postgres-url", database.url, EXPORTER_POSTGRES_TIMEOUT="1")
    eventually(lambda: counts(exporter, "mail") == {"waiting": 2})
    work.close()

    own_postgres.stop()
    eventually(lambda: exporter.metrics.value("bullmq_up") == 0)
    assert counts(exporter, "mail") == {}
    answer = exporter.api.get("/v1/jobs/queues/mail")
    assert (answer.status, answer.json["message"]) == (503, "PostgreSQL cannot be reached")
    own_postgres.start()
    eventually(lambda: counts(exporter, "mail") == {"waiting": 2})
    assert exporter.lines("PostgreSQL is unavailable")
    assert exporter.lines("PostgreSQL is back")

    own_postgres.pause()
    eventually(lambda: exporter.metrics.value("bullmq_up") == 0)
    assert exporter.api.get("/v1/jobs/queues/mail").status == 503
    own_postgres.resume()
    eventually(lambda: counts(exporter, "mail") == {"waiting": 2})
    assert exporter.terminate() == 0
    assert "never retrieved" not in exporter.log


@pytest.mark.parametrize("delay", ["-1e30", "-9.3e18", "1e300"])
def test_a_delay_of_any_size_harms_no_poll(
    database: Database, start_exporter: StartExporter, delay: str
) -> None:
    database.execute(
        "INSERT INTO job (queue, id, seq, name, state, data, opts, added_at_ms) VALUES"
        f" ('mail', '1', 1, 'send', 'waiting', '{{}}', '{{\"delay\": {delay}}}', 0)"
    )
    exporter = start_exporter("", "--postgres-url", database.url)
    eventually(lambda: counts(exporter, "mail") == {"waiting": 1})
    assert not exporter.lines("PostgreSQL is unavailable")


def test_a_hot_standby_is_read_except_for_workers(
    own_postgres: PostgresServer,
    start_work: StartWork,
    start_exporter: StartExporter,
) -> None:
    database = own_postgres.create_database()
    work = start_work("bullmq6", database.url)
    work.add("mail", "send", 3, {})
    work.work("other", {})
    with own_postgres.running_standby() as standby:
        url = Database(standby, database.name).url
        exporter = start_exporter("", "--postgres-url", url)
        eventually(lambda: counts(exporter, "mail") == {"waiting": 3})
        work.add("mail", "send", 1, {})
        eventually(lambda: counts(exporter, "mail") == {"waiting": 4})
        assert exporter.metrics.value("bullmq_queue_workers", queue="other") is None
        [line] = eventually(lambda: exporter.lines("workers cannot be counted"))
        assert "it is a standby" in line["detail"]


def test_fields_of_megabytes_are_left_out(
    database: Database, work: Work, start_exporter: StartExporter
) -> None:
    work.addJobs("mail", [{"name": "send", "data": {"text": "x" * (2 << 20)}, "opts": {}}])
    work.addJobs("mail", [{"name": "send", "data": {"n": 1}, "opts": {}}])
    exporter = start_exporter("", "--postgres-url", database.url)
    eventually(lambda: counts(exporter, "mail") == {"waiting": 2})
    large, small = exporter.api.get("/v1/jobs/queues/mail?status=waiting").json["jobs"]
    assert large["data"].startswith("[left out: 20971")
    assert small["data"] == {"n": 1}
    job = exporter.api.get(f"/v1/jobs/queues/mail/jobs/{large['id']}").json["job"]
    assert job["data"] == large["data"]
    found = exporter.api.get("/v1/jobs/queues/mail?status=waiting&text=left+out").json
    assert found["search"] == {"seen": 2, "complete": True}
    assert [each["id"] for each in found["jobs"]] == [large["id"]]


def test_a_pooler_may_stand_between(
    database: Database, work: Work, start_exporter: StartExporter
) -> None:
    work.add("mail", "send", 3, {})
    with pooled(database) as url:
        exporter = start_exporter("", "--postgres-url", url)
        eventually(lambda: counts(exporter, "mail") == {"waiting": 3})
        for _ in range(5):
            answer = exporter.api.get("/v1/jobs/queues/mail?status=waiting").json
            assert answer["pagination"]["totalJobs"] == 3
        collected = exporter.metrics.samples("bullmq_exporter_collector_success")
        assert set(collected.values()) == {1}
        # What one message sets is gone with it, on the connection that all of them share.
        shared = "SELECT current_setting('statement_timeout'), current_setting('search_path')"
        with psycopg.connect(url, autocommit=True) as connection:
            assert connection.execute(shared).fetchone() == ("0", '"$user", public')


def test_tls_is_verified_unless_a_setting_says_otherwise(
    own_postgres: PostgresServer, tmp_path: Path
) -> None:
    database = own_postgres.create_database()
    authority = trustme.CA()
    own_postgres.stop()
    own_postgres.use_tls(authority.issue_cert("127.0.0.1"))
    own_postgres.start()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    url = database.url.partition("?")[0]

    def checked(url: str, authorities: str = "") -> str:
        files = {"EXPORTER_POSTGRES_TLS_CA": str(tmp_path / authorities)} if authorities else {}
        return check(url, **files)[1]

    assert "no BullMQ queue found" in checked(url, "ca.pem")
    for wrong in ("", "other.pem"):  # the system's, and another one
        assert "certificate verify failed; see postgres.tls" in checked(url, wrong)
    by_name = url.replace("127.0.0.1", "localhost")
    assert "does not match host name" in checked(by_name, "ca.pem")
    assert "no BullMQ queue found" in checked(f"{url}?sslmode=require")


def test_redis_and_postgres_are_watched_together(
    database: Database,
    server: Server,
    work: Work,
    start_work: StartWork,
    start_exporter: StartExporter,
    tmp_path: Any,
) -> None:
    work.add("mail", "send", 2, {})
    start_work("bullmq6", server.port).add("mail", "send", 3, {})
    config = tmp_path / "exporter.yml"
    config.write_text(
        f"""
targets:
  - {{name: old, redis: {{url: 'redis://127.0.0.1:{server.port}'}}}}
  - {{name: new, postgres: {{url: '{database.url}'}}}}
"""
    )
    exporter = start_exporter("", "--config", str(config))
    value = exporter.metrics.value
    labels = {"queue": "mail", "state": "waiting"}
    prefixes = {"old": "bull", "new": "bullmq"}
    eventually(lambda: value("bullmq_job_count", target="old", **labels) == 3)
    eventually(lambda: value("bullmq_job_count", target="new", **labels) == 2)
    eventually(lambda: value("bullmq_exporter_events_followed", target="old") == 1)
    eventually(lambda: value("bullmq_exporter_events_followed", target="new") == 1)
    for target, number in (("old", 3), ("new", 2)):
        answer = exporter.api.get(
            f"/v1/jobs/queues/mail?status=waiting&target={target}&prefix={prefixes[target]}"
        )
        assert answer.json["pagination"]["totalJobs"] == number
