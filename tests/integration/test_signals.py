"""Signals, from the first moment on; and a log that nobody reads."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter import log_writer
from exporter.deadline import Deadline
from exporter.log_writer import LineWriter
from tests.support.bullmq import StartWork
from tests.support.exporters import API_KEY, clean_environment
from tests.support.http_client import Client
from tests.support.ports import free_port
from tests.support.programs import needs_root
from tests.support.servers import Server
from tests.support.waiting import eventually

IGNORED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# Whoever runs the tests under nohup ignores SIGHUP, and so would all that they start.
COMMAND = ["env", "--default-signal=HUP", sys.executable, "-m", "exporter"]


def test_signals_that_mean_nothing_end_nothing_and_each_is_one_line(
    server: Server, start_work: StartWork, tmp_path: Path
) -> None:
    said = "signal ignored: restart the exporter to apply changed settings"
    metrics = free_port()
    log, exporter = tmp_path / "log", Client(f"http://127.0.0.1:{metrics}")

    def signals() -> list[str]:
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        return [line["signal"] for line in lines if line["msg"] == said]

    with log.open("wb") as stderr, start(server, metrics, stderr=stderr.fileno()) as process:
        eventually(lambda: exporter.get("/-/ready").status == 200)
        for number in IGNORED:
            for _ in range(3):
                process.send_signal(number)
            eventually(lambda name=number.name: name in signals())
        start_work("bullmq5", server.port).add("ingestion", "plain", 2)
        waiting = {"queue": "ingestion", "state": "waiting"}
        eventually(lambda: exporter.value("bullmq_job_count", **waiting) == 2)
        assert sorted(signals()) == ["SIGHUP", "SIGUSR1", "SIGUSR2"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(180) == 0


def test_a_terminal_that_is_closed_ends_what_was_started_in_it(server: Server) -> None:
    ours, theirs = pty.openpty()
    metrics = free_port()
    with start(server, metrics, stdin=theirs, stderr=subprocess.DEVNULL) as process:
        os.close(theirs)
        eventually(lambda: Client(f"http://127.0.0.1:{metrics}").get("/-/ready").status == 200)
        process.send_signal(signal.SIGHUP)
        assert process.wait(180) == 0
    os.close(ours)


@contextlib.contextmanager
def start(
    server: Server, metrics: int, *before: str, stdin: int = subprocess.DEVNULL, stderr: int
) -> Iterator[subprocess.Popen[bytes]]:
    environment = clean_environment(
        EXPORTER_API_KEY=API_KEY,
        EXPORTER_POLL_INTERVAL="0.2",
        EXPORTER_DISCOVERY_INTERVAL="0.2",
        EXPORTER_LOG_FORMAT="json",
        EXPORTER_METRICS_LISTEN=f"127.0.0.1:{metrics}",
        EXPORTER_API_LISTEN="127.0.0.1:0",
    )
    command = [*before, *COMMAND, "--redis-url", server.url]
    with subprocess.Popen(command, env=environment, stdin=stdin, stderr=stderr) as process:
        try:
            yield process
        finally:
            process.kill()


def child_of(pid: int) -> int | None:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None


def test_process_1_of_a_container_can_be_ended_before_it_has_begun(server: Server) -> None:
    """The kernel throws away what the first process of a container does not handle or block."""
    needs_root("makes a namespace of processes")
    first = ("unshare", "--pid", "--fork", "--kill-child", "env", "--block-signal=TERM")
    with start(server, free_port(), *first, stderr=subprocess.DEVNULL) as process:
        pid = eventually(lambda: child_of(process.pid), pause=0.001)
        # Python, with what `env` has blocked, and nothing of it has run.
        command = Path(f"/proc/{pid}/cmdline")
        eventually(lambda: command.read_text().startswith(sys.executable), pause=0.001)
        os.kill(pid, signal.SIGTERM)
        assert process.wait(180) == 128 + signal.SIGTERM


def test_process_1_of_a_container_ends_as_any_other_once_it_has_begun(server: Server) -> None:
    needs_root("makes a namespace of processes")
    first, metrics = ("unshare", "--pid", "--fork", "--kill-child"), free_port()
    with start(server, metrics, *first, stderr=subprocess.DEVNULL) as process:
        pid = eventually(lambda: child_of(process.pid))
        eventually(lambda: Client(f"http://127.0.0.1:{metrics}").get("/-/ready").status == 200)
        os.kill(pid, signal.SIGTERM)
        assert process.wait(180) == 0


# A log that nobody reads


def small_pipe() -> tuple[int, int]:
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    return ours, theirs


def test_a_log_that_nobody_reads_stops_neither_polls_nor_scrapes_nor_the_end(
    server: Server,
) -> None:
    ours, theirs = small_pipe()
    metrics = free_port()
    with start(server, metrics, stderr=theirs) as process, server.client() as client:
        os.close(theirs)
        exporter = Client(f"http://127.0.0.1:{metrics}")
        eventually(lambda: exporter.get("/-/ready").status == 200)
        for number in range(20):  # each is a line, "found queues", that names it
            client.hset(f"bull:{number}-{'q' * 150}:meta", "version", "bullmq:5.56.3")
            eventually(lambda n=number: exporter.value("bullmq_exporter_queues") == n + 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(180) == 0
    with os.fdopen(ours, "rb") as pipe:
        assert len(pipe.read()) <= 4096  # it was full


def test_a_log_whose_reader_is_gone_stops_nothing(server: Server) -> None:
    ours, theirs = small_pipe()
    metrics = free_port()
    with start(server, metrics, stderr=theirs) as process:
        os.close(theirs)
        os.close(ours)
        eventually(lambda: Client(f"http://127.0.0.1:{metrics}").get("/-/ready").status == 200)
        process.send_signal(signal.SIGTERM)
        assert process.wait(180) == 0


def test_a_log_that_was_closed_before_the_start_stops_nothing(server: Server) -> None:
    metrics = free_port()
    closing = ("sh", "-c", 'exec "$@" 2>&-', "sh")
    with start(server, metrics, *closing, stderr=subprocess.DEVNULL) as process:
        eventually(lambda: Client(f"http://127.0.0.1:{metrics}").get("/-/ready").status == 200)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def logger_to(descriptor: int, seconds: float = 60) -> logging.Logger:
    logger = logging.Logger("test")
    writer = LineWriter(descriptor, "utf-8", Deadline(seconds))
    writer.setFormatter(logging.Formatter("%(message)s %(count)s", defaults={"count": ""}))
    logger.addHandler(writer)
    return logger


@pytest.mark.parametrize("blocking", [True, False])
def test_lines_that_were_dropped_are_counted_and_a_line_says_how_many(
    monkeypatch: pytest.MonkeyPatch, blocking: bool
) -> None:
    monkeypatch.setattr(log_writer, "MAX_WAITING_BYTES", 10_000)
    ours, theirs = small_pipe()
    os.set_blocking(theirs, blocking)
    logger = logger_to(theirs, seconds=0.1)
    for number in range(5000):
        logger.warning("line %05d", number)
    logger.handlers[0].flush()  # returns
    lines: list[str] = []
    dropped = 0
    with os.fdopen(ours) as pipe:
        while len(lines) + dropped < 5000:
            line = pipe.readline().strip()
            if line.startswith("log lines were dropped: stderr was not read "):
                dropped += int(line.rpartition(" ")[2])
            else:
                lines.append(line)
    assert dropped > 0
    assert lines == sorted(set(lines))
    assert lines[0] == "line 00000"
    os.close(theirs)


def test_the_end_waits_for_the_lines_that_can_be_written(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with file.open("wb") as stderr:
        logger = logger_to(stderr.fileno())
        for number in range(10_000):
            logger.warning("line %05d", number)
        logger.handlers[0].flush()
    assert len(file.read_text().splitlines()) == 10_000


def test_a_line_that_cannot_be_formatted_is_said_to_be_one(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with file.open("wb") as stderr:
        logger = logger_to(stderr.fileno())
        logger.warning("%d", "no number")
        logger.warning("the next one")
        logger.handlers[0].flush()
    assert [line.strip() for line in file.read_text().splitlines()] == [
        "a log line cannot be formatted",
        "the next one",
    ]
