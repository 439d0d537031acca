"""We only read: with rights to read alone, and with few commands."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.bullmq import History
from tests.support.exporters import Exporter, StartExporter
from tests.support.readme import in_6_2, readme_acl
from tests.support.servers import SERVERS, Server, running
from tests.support.waiting import eventually

MakeHistory = Callable[..., History]


def look_into(exporter: Exporter, job: str) -> None:
    """What the page asks for beside lists of jobs."""
    for path in (
        "?detail=true",
        "/ingestion?text=x",
        "/ingestion/failures",
        f"/ingestion/jobs/{job}",
    ):
        assert exporter.api.get(f"/v1/jobs/queues{path}").status == 200


@pytest.mark.parametrize("kind", SERVERS)
def test_the_acl_line_of_the_readme_is_enough_for_everything(
    kind: str, tmp_path: Path, start_exporter: StartExporter, history: MakeHistory
) -> None:
    with running(kind, tmp_path) as server, server.client() as admin:
        line = readme_acl("a-password")
        admin.execute_command(*(in_6_2(line) if kind == "redis-6.2" else line))
        admin.set("oa:worker:ingestion:alive", "1795482933152")
        truth = history("bullmq5", server.port, "ingestion").truth
        admin.execute_command("ACL", "LOG", "RESET")
        exporter = start_exporter(f"redis://exporter:a-password@127.0.0.1:{server.port}")
        value = exporter.metrics.value

        assert value("bullmq_job_count", queue="ingestion", state="failed") == 7
        assert value("bullmq_queue_workers", queue="ingestion") == 1
        assert value("bullmq_worker_heartbeat_timestamp_seconds", queue="ingestion")
        assert value("bullmq_queue_retention_limit", queue="ingestion", state="failed") == 5000
        page = exporter.api.get("/v1/jobs/queues/ingestion?status=waiting&limit=100").json
        assert len(page["jobs"]) == len(truth["jobs"]["waiting"])
        look_into(exporter, page["jobs"][0]["id"])
        assert admin.execute_command("ACL", "LOG") == []
        assert exporter.lines("Redis is unavailable") == []


def test_without_the_right_to_list_clients_only_the_workers_are_absent(
    own_server: Server, start_exporter: StartExporter, history: MakeHistory
) -> None:
    with own_server.client() as admin:
        line = [word for word in readme_acl("a-password") if not word.startswith("+client")]
        admin.execute_command(*line)
    history("bullmq6", own_server.port, "ingestion")
    exporter = start_exporter(f"redis://exporter:a-password@127.0.0.1:{own_server.port}")
    assert exporter.metrics.value("bullmq_up") == 1
    assert exporter.metrics.value("bullmq_job_count", queue="ingestion", state="failed") == 7
    assert exporter.metrics.samples("bullmq_queue_workers") == {}


def test_the_workers_of_another_database_are_not_counted(
    own_server: Server, start_exporter: StartExporter, history: MakeHistory
) -> None:
    history("bullmq5", own_server.port, "ingestion")
    with own_server.client(db=1) as client:
        client.hset("bull:ingestion:meta", "version", "bullmq:5.56.3")
    here = start_exporter(own_server.url)
    there = start_exporter(f"{own_server.url}/1")
    assert here.metrics.value("bullmq_queue_workers", queue="ingestion") == 1
    assert there.metrics.value("bullmq_queue_workers", queue="ingestion") == 0


def test_a_search_for_queues_that_is_refused_is_reported(
    own_server: Server, start_exporter: StartExporter
) -> None:
    with own_server.client() as admin:
        admin.execute_command(*readme_acl("a-password"))
        admin.hset("bull:old:meta", "version", "bullmq:5.56.3")
        exporter = start_exporter(f"redis://exporter:a-password@127.0.0.1:{own_server.port}")
        searched = "bullmq_exporter_last_discovery_timestamp_seconds"
        first = exporter.metrics.value(searched)
        eventually(lambda: exporter.metrics.value(searched) > first)
        admin.execute_command("ACL", "SETUSER", "exporter", "-scan")
        eventually(lambda: exporter.lines("queues cannot be searched for"))
        stopped = exporter.metrics.value(searched)
        time.sleep(1.2)  # two further searches
        assert exporter.metrics.value(searched) == stopped
        assert exporter.metrics.value("bullmq_up") == 1
        assert exporter.metrics.samples("bullmq_queue_paused").keys() == {("old",)}
        [line] = eventually(lambda: exporter.lines("queues cannot be searched for"))
        assert "new queues are not watched" in line["detail"]
        admin.execute_command("ACL", "SETUSER", "exporter", "+scan")
        eventually(lambda: len(exporter.lines("queues can be searched for again")) == 1)
        eventually(lambda: exporter.metrics.value(searched) > stopped)


def test_that_workers_cannot_be_counted_is_said_once_and_when_it_is_over(
    own_server: Server, start_exporter: StartExporter
) -> None:
    with own_server.client() as admin:
        admin.execute_command(*readme_acl("a-password"))
        admin.hset("bull:mail:meta", "version", "bullmq:5.56.3")
        exporter = start_exporter(f"redis://exporter:a-password@127.0.0.1:{own_server.port}")
        workers = "bullmq_queue_workers"
        assert exporter.metrics.value(workers, queue="mail") == 0
        admin.execute_command("ACL", "SETUSER", "exporter", "-client|list")
        eventually(lambda: exporter.metrics.samples(workers) == {})
        admin.execute_command("ACL", "SETUSER", "exporter", "+client|list")
        eventually(lambda: exporter.metrics.value(workers, queue="mail") == 0)
    [line] = eventually(lambda: exporter.lines("workers cannot be counted"))
    assert "client|list" in line["detail"]
    assert "BullMQNoWorker cannot fire" in line["detail"]
    assert len(exporter.lines("a collector succeeds again")) == 1


def test_a_server_that_drops_client_names_has_its_workers_absent_not_zero(
    own_server: Server, start_exporter: StartExporter, history: MakeHistory
) -> None:
    """As Aiven did for Open Archiver: CLIENT LIST answers, but shows no names."""
    with own_server.client() as admin:
        line = [word for word in readme_acl("a-password") if word != "+client|setname"]
        admin.execute_command(*line)
    history("bullmq6", own_server.port, "ingestion")
    exporter = start_exporter(f"redis://exporter:a-password@127.0.0.1:{own_server.port}")
    assert exporter.metrics.value("bullmq_up") == 1
    assert exporter.metrics.samples("bullmq_queue_workers") == {}
    [line] = eventually(lambda: exporter.lines("workers cannot be counted"))
    assert "does not show the names" in line["detail"]


def test_an_older_server_is_read_all_the_same(
    tmp_path: Path, start_exporter: StartExporter
) -> None:
    """Redis before 7.0 has no EVALSHA_RO, before 6.0 no HELLO."""
    with running(SERVERS[-1], tmp_path, "--rename-command", "HELLO", "") as server:
        make_queues(server, 3)
        exporter = start_exporter(server.url)
        for command in ("SCRIPT FLUSH", "PING"):
            page = exporter.api.get("/v1/jobs/queues/queue-1?status=waiting").json
            assert page["pagination"]["totalJobs"] == 100
            with server.client() as client:
                client.execute_command(*command.split())
        waiting = exporter.metrics.samples("bullmq_job_count", state="waiting")
        assert set(waiting.values()) == {100}
        assert exporter.lines("Redis is unavailable") == []


@contextmanager
def monitored(server: Server) -> Iterator[list[str]]:
    """The commands that clients send while the context lasts (not those inside of scripts)."""
    seen: list[str] = []
    client = server.client()
    with client.monitor() as monitor:

        def listen() -> None:
            for command in monitor.listen():
                if command["client_type"] != "lua":
                    seen.append(command["command"].split(" ")[0].upper())
                if "the end of monitoring" in command["command"]:
                    return

        thread = threading.Thread(target=listen)
        thread.start()
        yield seen
        with server.client() as other:
            other.echo("the end of monitoring")
        thread.join(10)
    client.close()
    seen.pop()


def make_queues(server: Server, count: int) -> None:
    with server.client() as client:
        for number in range(count):
            client.hset(f"bull:queue-{number}:meta", "version", "bullmq:5.56.3")
            client.lpush(f"bull:queue-{number}:wait", *(f"job-{i}" for i in range(100)))
            for i in range(100):
                client.hset(f"bull:queue-{number}:job-{i}", mapping={"name": "n", "data": "{}"})


def test_a_poll_asks_twelve_commands_a_queue_and_a_page_of_100_jobs_two_round_trips(
    server: Server, start_exporter: StartExporter
) -> None:
    make_queues(server, 100)
    exporter = start_exporter(server.url, **RARE)
    exporter.api.get("/v1/jobs/queues/queue-0?status=waiting")  # the scripts are known from now on
    # The counts of 100 queues, whether 25 heartbeats each are there, the edges of 25 queues each,
    # for jobs wait in all.
    asked = {"HEXISTS": 400, "LLEN": 600, "ZCARD": 1200, "EXISTS": 208, "EVALSHA_RO": 8}
    eventually(lambda: commands_of_two_polls(server, exporter) == asked)

    with monitored(server) as seen:
        page = exporter.api.get("/v1/jobs/queues/queue-7?status=waiting&limit=100").json
    assert len(page["jobs"]) == 100
    of_the_page = [command for command in seen if command not in ("EVALSHA_RO", "XREAD")]
    assert of_the_page == ["HMGET"] * 100


def test_a_poll_asks_four_commands_a_queue_that_holds_but_finished_jobs(
    server: Server, start_exporter: StartExporter
) -> None:
    with server.client() as client:
        for number in range(100):
            client.hset(f"bull:queue-{number}:meta", "version", "bullmq:5.56.3")
            client.zadd(f"bull:queue-{number}:completed", {"1": 1})
    exporter = start_exporter(server.url, **RARE)
    # Of each one whether it still does; and the heartbeats, of 25 queues each.
    asked = {"HEXISTS": 200, "ZCARD": 400, "EXISTS": 200 + 8}
    eventually(lambda: commands_of_two_polls(server, exporter) == asked)


RARE = {
    "EXPORTER_POLL_INTERVAL": "1",
    "EXPORTER_DISCOVERY_INTERVAL": "3600",
    "EXPORTER_WORKERS_INTERVAL": "3600",
}


def commands_of_two_polls(server: Server, exporter: Exporter) -> Counter[str]:
    """What is sent in two polls, but for the reading of events.

    On a busy machine the end of a poll may be seen late, and a part of another one with it.
    """

    def polls() -> float:
        return exporter.metrics.value("bullmq_exporter_poll_duration_seconds_count") or 0

    first = polls()
    eventually(lambda: polls() > first)
    first = polls()
    with monitored(server) as seen:
        eventually(lambda: polls() >= first + 2)
    sent = Counter(seen)
    del sent["XREAD"]  # one command for all streams, which waits for an event
    return sent


def test_every_command_we_ever_send_is_a_read(
    own_server: Server, start_exporter: StartExporter, history: MakeHistory
) -> None:
    history("bullmq5", own_server.port, "ingestion").close()
    with own_server.client() as client:
        client.config_resetstat()
        replicated = client.info("replication")["master_repl_offset"]
        dirty = client.info("persistence")["rdb_changes_since_last_save"]
        exporter = start_exporter(own_server.url)
        for status in ("waiting", "paused", "failed", "delayed"):
            jobs = exporter.api.get(f"/v1/jobs/queues/ingestion?status={status}").json["jobs"]
            for job in jobs[:1]:
                look_into(exporter, job["id"])
        exporter.terminate()
        assert client.info("persistence")["rdb_changes_since_last_save"] == dirty
        assert client.info("replication")["master_repl_offset"] == replicated
        sent = {name.removeprefix("cmdstat_") for name in client.info("commandstats")}
        for name in sent - {"config|resetstat", "client|setname", "client|list"}:
            flags = client.execute_command("COMMAND", "INFO", name.split("|")[0])
            [described] = flags.values() if isinstance(flags, dict) else flags
            assert "write" not in str(described), name
