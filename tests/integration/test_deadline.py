"""The end of the process comes in time, whatever stalls."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trustme

from exporter import app
from exporter.daemon_thread import MAX_CALLS, DaemonThreadExecutor
from exporter.deadline import MIN_SECONDS, SHUTDOWN_SECONDS, Deadline
from exporter.settings import load, prepare
from tests.support.exporters import API_KEY, StartExporter, clean_environment
from tests.support.http_client import Client
from tests.support.ports import free_port
from tests.support.servers import Server
from tests.support.tls import with_tls, write_certificate
from tests.support.waiting import eventually

QUEUES = "/v1/jobs/queues"


def test_all_that_is_waited_for_shares_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    deadline = Deadline()
    now += 60
    assert deadline.left() == SHUTDOWN_SECONDS
    deadline.start()
    now += 1.5
    assert deadline.left() == SHUTDOWN_SECONDS - 1.5
    deadline.start()  # a second signal
    now += 1
    assert deadline.left() == MIN_SECONDS


class Noted(Deadline):
    """Who asks how much is left, and whether it was started by then."""

    def __init__(self) -> None:
        super().__init__()
        self.is_started = False
        self.asked: list[tuple[str, bool]] = []

    def start(self) -> None:
        self.is_started = True
        super().start()

    def left(self) -> float:
        module = sys._getframe(1).f_globals["__name__"]
        self.asked.append((module.removeprefix("exporter."), self.is_started))
        return super().left()


async def test_each_part_of_the_end_asks_how_much_of_it_is_left(
    server: Server, tmp_path: Path
) -> None:
    started, deadline = asyncio.Event(), Noted()
    settings = load(
        {"metrics.listen": "127.0.0.1:0", "api.listen": "127.0.0.1:0", "redis.url": server.url},
        {"EXPORTER_API_KEY": API_KEY, "EXPORTER_EVENTS_STATE_FILE": str(tmp_path / "state")},
    )
    run = app.run(prepare(settings), lambda *_: started.set(), deadline)
    running = asyncio.create_task(run)
    await started.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(180):
        await running
    parts = ("state.state_file", "web.server", "app")
    assert sorted(deadline.asked) == sorted((part, True) for part in parts)


def test_it_ends_in_time_whatever_stalls(tmp_path: Path, start_exporter: StartExporter) -> None:
    """Alone, TLS would wait 30 s for each pool of connections until Redis agrees to the end."""
    authority = trustme.CA()
    write_certificate(authority, tmp_path)
    # A FIFO that nobody reads: who opens it to write waits for ever.
    os.mkfifo(tmp_path / "state.new")
    with with_tls(tmp_path, authority, "redis.internal") as (url, server):
        with server.client() as client:
            client.hset("bull:ingestion:meta", "version", "bullmq:5.56.3")
        exporter = start_exporter(
            url,
            EXPORTER_REDIS_TLS_CA=str(tmp_path / "ca.pem"),
            EXPORTER_REDIS_TLS_SERVER_NAME="redis.internal",
            EXPORTER_REDIS_TLS_CERT=str(tmp_path / "mine.pem"),
            EXPORTER_REDIS_TLS_KEY=str(tmp_path / "mine.key"),
            EXPORTER_REDIS_TIMEOUT="60",
            EXPORTER_EVENTS_STATE_FILE=str(tmp_path / "state"),
        )
        eventually(lambda: exporter.lines("the state file cannot be written"))
        answers = [
            threading.Thread(target=lambda: exporter.api.get(f"{QUEUES}/ingestion"))
            for _ in range(3)
        ]
        for answer in answers:
            answer.start()
        for answer in answers:
            answer.join()
        server.pause()
        try:
            # One waits for Redis, the other connections are idle.
            asking = threading.Thread(target=hangs_up, args=(exporter.api,))
            asking.start()
            exporter.process.terminate()
            # 2 s, and the rest for a busy machine.
            assert exporter.process.wait(20) == 0
            asking.join()
        finally:
            server.resume()
    assert "Traceback" not in exporter.log


def hangs_up(client: Client) -> None:
    with pytest.raises(OSError):
        client.get(f"{QUEUES}/ingestion")


NAME_SERVER_IS_GONE = """
import socket, time
look_up = socket.getaddrinfo
def getaddrinfo(host, *more, **options):
    if host == "redis.internal":
        print("asked", flush=True)
        time.sleep(3600)
    return look_up(host, *more, **options)
socket.getaddrinfo = getaddrinfo
from exporter.cli import main
main()
"""


def test_it_ends_though_a_name_server_does_not_answer() -> None:
    environment = clean_environment(
        EXPORTER_API_KEY=API_KEY,
        EXPORTER_REDIS_TIMEOUT="0.2",
        EXPORTER_METRICS_LISTEN=f"127.0.0.1:{free_port()}",
        EXPORTER_API_LISTEN="127.0.0.1:0",
        REDIS_HOST="redis.internal",
    )
    command = [sys.executable, "-c", NAME_SERVER_IS_GONE]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe) as process:
        try:
            assert process.stdout is not None
            # Given up on, and asked again.
            for _ in range(5):
                assert process.stdout.readline() == b"asked\n"
            process.terminate()
            _, log = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert b"did not answer within" in log
    assert b"Traceback" not in log


async def test_calls_that_do_not_end_are_bounded() -> None:
    loop = asyncio.get_running_loop()
    executor, end = DaemonThreadExecutor(), threading.Event()
    waiting = [loop.run_in_executor(executor, end.wait) for _ in range(MAX_CALLS)]
    with pytest.raises(OSError, match="too many"):
        await loop.run_in_executor(executor, end.wait)
    end.set()
    assert await asyncio.gather(*waiting) == [True] * MAX_CALLS
    assert await loop.run_in_executor(executor, lambda: 5) == 5
    executor.shutdown()
