"""`--check` and the log say what is not watched and not read, and what to set."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import Server, StartExporter, clean_environment, eventually
from tests.test_access import readme_acl


def check(url: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "exporter", "--check", "--redis-url", url, *flags]
    return subprocess.run(
        command, env=clean_environment(), capture_output=True, text=True, check=False
    )


def test_a_wrong_prefix_or_database_is_said_with_what_there_is(
    server: Server, start_exporter: StartExporter
) -> None:
    with server.client() as client:
        for base in ("{bull}:mail", "{bull}:sync", "other:mail"):
            client.hset(f"{base}:meta", "opts.maxLenEvents", "10000")
        client.hset("site:meta", "title", "of another application")
    checked = check(server.url)
    assert checked.returncode == 1
    assert "no BullMQ queue found: under the prefix bull in database 0" in checked.stdout
    others = "queues of other prefixes are not watched: 3, by prefix: {bull} (2), other (1)"
    assert others in checked.stdout
    assert "EXPORTER_PREFIX, --prefix" in checked.stdout

    checked = check(f"{server.url}/5")
    assert checked.returncode == 1
    assert "in database 5" in checked.stdout
    assert "other databases hold keys: 0 (4 keys); see redis.db" in checked.stdout

    checked = check(server.url, "--prefix", "{bull}")
    assert checked.returncode == 0
    assert "by prefix: other (1)" in checked.stdout

    exporter = start_exporter(server.url)
    [line] = exporter.lines("no BullMQ queue found")
    assert line["level"] == "warning"
    [line] = exporter.lines("queues of other prefixes are not watched")
    assert "{bull} (2), other (1)" in line["detail"]
    unwatched = "bullmq_exporter_unwatched_queues"
    assert exporter.metrics.value(unwatched, reason="prefix") == 3
    # Once, however often it is searched for.
    searched = "bullmq_exporter_last_discovery_timestamp_seconds"
    first = exporter.metrics.value(searched)
    eventually(lambda: exporter.metrics.value(searched) > first)
    assert len(exporter.lines("no BullMQ queue found")) == 1


def test_a_queue_that_is_named_and_not_there_is_said_with_what_may_have_been_meant(
    server: Server, start_exporter: StartExporter
) -> None:
    with server.client() as client:
        for name in ("jobs", "mail"):
            client.hset(f"bull:{name}:meta", "opts.maxLenEvents", "10000")
    detail = "Jobs, did you mean jobs?, quite-new; see queues (EXPORTER_QUEUES, --queues)"
    checked = check(server.url, "--queues", "Jobs,mail,quite-new")
    assert f"named queues are not in Redis (yet): {detail}" in checked.stdout
    assert check(server.url, "--queues", "Jobs").returncode == 1
    assert check(server.url, "--queues", "jobs").stdout.count("\n") == 3

    exporter = start_exporter(server.url, "--queues", "Jobs,mail,quite-new")
    [line] = eventually(lambda: exporter.lines("named queues are not in Redis (yet)"))
    assert line["detail"] == detail
    assert exporter.metrics.value("bullmq_job_count", queue="Jobs", state="failed") == 0


def test_a_named_queue_exists_without_a_version_and_without_jobs(server: Server) -> None:
    """BullMQ wrote no version from 5.0 to 5.18, and a queue at rest may have lost its `meta`."""
    with server.client() as client:
        client.hset("bull:old:meta", "opts.maxLenEvents", "10000")
        client.zadd("bull:bare:repeat", {"nightly": 1})
    for name in ("old", "bare"):
        checked = check(server.url, "--queues", name)
        assert checked.returncode == 0, checked.stdout
    assert check(server.url, "--queues", "none").returncode == 1


def test_check_says_what_is_not_reported(own_server: Server) -> None:
    with own_server.client() as admin:
        admin.execute_command(*readme_acl("a-password"), "-client|list")
        admin.hset("bull:mail:meta", "version", "bullmq:5.56.3")
        url = f"redis://exporter:a-password@127.0.0.1:{own_server.port}"
        checked = check(url)
        assert checked.returncode == 0
        assert "workers cannot be counted: Redis refused CLIENT LIST" in checked.stdout
        assert "BullMQNoWorker cannot fire" in checked.stdout
        admin.execute_command("ACL", "SETUSER", "exporter", "-scan")
        checked = check(url, "--queues", "mail")
        assert checked.returncode == 0
        assert "queues cannot be searched for: " in checked.stdout
