"""Starting without Redis, losing it, getting it back, and ending."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
from pathlib import Path

import pytest

from exporter import app
from exporter.settings import load, prepare
from tests.support.exporters import API_KEY, StartExporter, clean_environment, run_exporter
from tests.support.proxy import Proxy
from tests.support.servers import Server, binary_of
from tests.support.waiting import eventually

QUEUES = "/v1/jobs/queues"


def make_queue(server: Server, jobs: int = 3) -> None:
    with server.client() as client:
        client.hset("bull:ingestion:meta", "version", "bullmq:5.56.3")
        for number in range(jobs):
            client.hset(f"bull:ingestion:{number}", mapping={"name": "n", "data": "{}"})
            client.zadd("bull:ingestion:failed", {str(number): number})


def test_it_starts_while_redis_is_down_and_sees_it_come(
    tmp_path: Path, start_exporter: StartExporter
) -> None:
    server = Server(binary_of("valkey"), tmp_path)
    exporter = start_exporter(server.url, ready=False)
    eventually(lambda: exporter.metrics.value("bullmq_up") == 0)
    assert exporter.metrics.get("/-/healthy").status == 200
    assert exporter.metrics.get("/-/ready").status == 503
    assert exporter.api.get(QUEUES).status == 503
    try:
        server.start()
        make_queue(server)
        exporter.wait_ready()
        eventually(
            lambda: (
                exporter.metrics.value("bullmq_job_count", queue="ingestion", state="failed") == 3
            )
        )
        assert exporter.api.get(QUEUES).json["queues"][0]["counts"]["failed"] == 3
    finally:
        server.stop()
    assert len(exporter.lines("Redis is unavailable")) == 1


def test_redis_stopped_and_started_under_load_is_reported_and_survived(
    own_server: Server, start_exporter: StartExporter
) -> None:
    make_queue(own_server, jobs=200)
    exporter = start_exporter(own_server.url)
    statuses: set[int] = set()
    problems: list[Exception] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                answer = exporter.api.get(f"{QUEUES}/ingestion?limit=100")
                statuses.add(answer.status)
                if answer.status == 200:
                    assert len(answer.json["jobs"]) == 100
                else:
                    assert answer.json == {"message": "Redis cannot be reached"}
                    assert answer.headers["Retry-After"]
            except Exception as problem:
                problems.append(problem)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            own_server.stop()
            eventually(lambda: exporter.metrics.value("bullmq_up") == 0)
            assert exporter.metrics.samples("bullmq_job_count") == {}
            assert exporter.metrics.samples("bullmq_queue_paused") == {}
            assert exporter.metrics.samples("bullmq_queue_workers") == {}
            assert exporter.metrics.get("/-/ready").status == 503
            eventually(lambda: exporter.api.get(QUEUES).status == 503)
            own_server.start()
            eventually(lambda: exporter.metrics.value("bullmq_up") == 1)
            failed = exporter.metrics.value("bullmq_job_count", queue="ingestion", state="failed")
            assert failed == 200
            eventually(lambda: exporter.api.get(QUEUES).status == 200)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert problems == []
    assert statuses == {200, 503}
    eventually(lambda: len(exporter.lines("Redis is back")) == 2)
    assert len(exporter.outages) == 2
    for reasons in exporter.outages:
        assert len(reasons) == len(set(reasons))
        assert all(re.search("refused|reset|closed", reason) for reason in reasons), reasons
    assert "Traceback" not in exporter.log


def test_a_redis_that_hangs_costs_a_timeout_never_a_hang(
    own_server: Server, start_exporter: StartExporter
) -> None:
    make_queue(own_server)
    exporter = start_exporter(own_server.url, EXPORTER_REDIS_TIMEOUT="2")
    own_server.pause()
    try:
        eventually(lambda: exporter.metrics.value("bullmq_up") == 0)
        answers: list[int] = []
        threads = [
            threading.Thread(target=lambda: answers.append(exporter.api.get(QUEUES).status))
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [503] * 20
        [line] = eventually(lambda: exporter.lines("Redis is unavailable"))
        assert "did not answer within 2 s" in line["reason"]
        assert "REDIS_HOST" in line["reason"]
    finally:
        own_server.resume()
    exporter.wait_ready()
    # Late answers of before must not be taken for answers of now.
    assert exporter.metrics.value("bullmq_job_count", queue="ingestion", state="failed") == 3
    for _ in range(30):
        page = exporter.api.get(f"{QUEUES}/ingestion").json
        assert [job["id"] for job in page["jobs"]] == ["0", "1", "2"]


def test_the_log_reports_when_the_reason_of_an_outage_changes(
    tmp_path: Path, start_exporter: StartExporter
) -> None:
    server = Server(binary_of("valkey"), tmp_path)
    server.start()
    exporter = start_exporter(server.url)
    server.stop()
    eventually(lambda: exporter.metrics.value("bullmq_up") == 0)
    locked = Server(binary_of("valkey"), tmp_path, ["--requirepass", "another"], port=server.port)
    locked.start()
    try:
        eventually(
            lambda: any("password" in e["reason"] for e in exporter.lines("Redis is unavailable"))
        )
        polls = exporter.metrics.value("bullmq_exporter_poll_errors_total")
        eventually(lambda: exporter.metrics.value("bullmq_exporter_poll_errors_total") > polls + 2)
        [reasons] = exporter.outages
        assert len(reasons) == len(set(reasons)) >= 2
    finally:
        locked.stop()


@pytest.mark.parametrize(
    "answer", [b"+OK\r\n", b"$-1\r\n", b":1\r\n", b"*0\r\n", b"HTTP/1.1 400\r\n"]
)
def test_a_server_that_only_looks_like_redis_is_an_outage_not_an_end(
    start_exporter: StartExporter, answer: bytes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    while connection.recv(65536):
                        connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        port = listener.getsockname()[1]
        # Some of its answers are too few: they are waited for.
        short = {"EXPORTER_REDIS_TIMEOUT": "1"}
        exporter = start_exporter(f"redis://127.0.0.1:{port}", ready=False, **short)
        eventually(lambda: exporter.metrics.value("bullmq_exporter_poll_errors_total") >= 3)
        assert exporter.metrics.value("bullmq_up") == 0
        assert exporter.api.get(QUEUES).status == 503
        [reasons] = exporter.outages
        assert len(reasons) == len(set(reasons))
        assert exporter.terminate() == 0

        checked = run_exporter("--check", "--redis-url", f"redis://127.0.0.1:{port}", **short)
        assert checked.returncode == 2
        [line] = checked.stderr.splitlines()
        assert "REDIS_HOST" in line


def test_a_redis_too_slow_to_be_read_in_time_is_an_outage(
    own_server: Server, start_exporter: StartExporter
) -> None:
    """Each batch within its limit, but all of them together older than may be reported."""
    with own_server.client() as client:
        for number in range(200):
            client.hset(f"bull:q{number}:meta", "version", "bullmq:5.56.3")
            client.lpush(f"bull:q{number}:wait", "1")
    with Proxy(own_server.port) as proxy:
        exporter = start_exporter(f"redis://127.0.0.1:{proxy.port}", EXPORTER_REDIS_TIMEOUT="0.5")
        proxy.delay = 0.2  # x 9 round trips > 2 x 0.5 s
        eventually(lambda: exporter.metrics.value("bullmq_up") == 0)
        eventually(
            lambda: any("too slowly" in e["reason"] for e in exporter.lines("Redis is unavailable"))
        )
        assert exporter.metrics.samples("bullmq_job_count") == {}
        proxy.delay = 0
        eventually(lambda: exporter.metrics.value("bullmq_up") == 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_time_with_code_0_whatever_clients_do(
    own_server: Server, start_exporter: StartExporter, number: signal.Signals
) -> None:
    make_queue(own_server)
    exporter = start_exporter(own_server.url)
    host, port = exporter.api.url.removeprefix("http://").split(":")
    idle = socket.create_connection((host, int(port)))
    half = socket.create_connection((host, int(port)))
    half.sendall(b"GET /v1/jobs/queues HTTP/1.1\r\nHost: x\r\n")
    exporter.process.send_signal(number)
    assert exporter.process.wait(180) == 0
    idle.close()
    half.close()
    assert exporter.lines("stopping")
    assert "Traceback" not in exporter.log


def test_an_answer_in_flight_is_finished_before_it_ends(
    own_server: Server, start_exporter: StartExporter
) -> None:
    make_queue(own_server)
    exporter = start_exporter(own_server.url, EXPORTER_DISCOVERY_INTERVAL="3600")
    answers: list[tuple[int, object]] = []

    def ask() -> None:
        answer = exporter.api.get(f"{QUEUES}/ingestion")
        answers.append((answer.status, answer.json["pagination"]["totalJobs"]))

    own_server.pause()
    before = connections_to(own_server.port)
    thread = threading.Thread(target=ask)
    thread.start()
    # Requests have connections of their own, and this is the first one: it waits for Redis.
    eventually(lambda: connections_to(own_server.port) > before)
    exporter.process.terminate()
    eventually(lambda: exporter.lines("stopping"), pause=0.01)
    own_server.resume()
    thread.join()
    assert answers == [(200, 3)]
    assert exporter.process.wait(180) == 0


def connections_to(port: int) -> int:
    """How many there are, as the system knows them."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


async def test_it_ends_whatever_it_was_doing_when_it_is_asked_to(server: Server) -> None:
    settings = load(
        {"metrics.listen": "127.0.0.1:0", "api.listen": "127.0.0.1:0", "redis.url": server.url},
        {"EXPORTER_API_KEY": API_KEY, "EXPORTER_POLL_INTERVAL": "0.1"},
    )
    for steps in range(120):
        started = asyncio.Event()
        run = app.run(prepare(settings), lambda *_, started=started: started.set())
        running = asyncio.create_task(run)
        await started.wait()
        for _ in range(steps):
            await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(180):
            await running


def test_it_ends_while_redis_hangs(own_server: Server, start_exporter: StartExporter) -> None:
    exporter = start_exporter(own_server.url)
    own_server.pause()
    try:
        time.sleep(0.5)
        exporter.process.terminate()
        assert exporter.process.wait(180) == 0
    finally:
        own_server.resume()
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        exporter.metrics.get("/-/healthy")


def test_logs_are_logfmt_or_json_and_quiet_while_nothing_changes(
    server: Server, start_exporter: StartExporter
) -> None:
    make_queue(server)
    exporter = start_exporter(server.url)

    def polls() -> float:
        return exporter.metrics.value("bullmq_exporter_poll_duration_seconds_count") or 0

    before, lines = polls(), len(exporter.log.splitlines())
    eventually(lambda: polls() > before + 5)
    for line in exporter.log.splitlines():
        assert {"ts", "level", "msg"} <= json.loads(line).keys()
    assert len(exporter.log.splitlines()) == lines

    # With a port each, since logfmt is not parsed for the addresses here.
    environment = clean_environment(EXPORTER_LOG_FORMAT="logfmt")
    command = [sys.executable, "-m", "exporter", "--redis-url", server.url]
    command += ["--metrics-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        for _ in range(3):
            line = process.stderr.readline()
            assert re.match(
                r'ts=\S+ level=(info|warning) msg=("[^"]+"|\S+)( \w+=("[^"]*"|\S+))*$', line
            ), line
        process.terminate()
