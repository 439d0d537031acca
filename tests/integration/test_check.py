"""`--check` and the log say what is not watched and not read, and what to set."""

from __future__ import annotations

import json
import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.exporters import StartExporter, clean_environment, run_exporter
from tests.support.readme import readme_acl
from tests.support.servers import Server
from tests.support.waiting import eventually


def check(url: str, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run_exporter("--check", "--redis-url", url, *flags, **variables)


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
    [line] = eventually(lambda: exporter.lines("no BullMQ queue found"))
    assert line["level"] == "warning"
    [line] = eventually(lambda: exporter.lines("queues of other prefixes are not watched"))
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


# Clears a terminal, goes back to the line's begin, turns the rest around, begins another line.
EVIL = "mail\x1b[2J\r\x00\x9b\u202e\u2066\n é\N{GRINNING FACE}"
SHOWN = r"mail\x1b[2J\r\x00\x9b\u202e\u2066\n é"
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2066\ufffd]")


@pytest.mark.parametrize(
    "encoding", [{}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}]
)
def test_check_writes_nothing_that_a_terminal_obeys(
    server: Server, encoding: dict[str, str]
) -> None:
    with server.client() as client:
        for key in (f"bull:{EVIL}:meta", f"{EVIL}:mail:meta", f"{EVIL}:mail:events"):
            client.hset(key, "version", f"bullmq:5\x1b]0;title\x07{EVIL}")
    checked = check(server.url, **encoding)
    assert checked.returncode == 0, checked.stderr
    assert len(checked.stdout.splitlines()) == 4
    assert not OBEYED.search(checked.stdout)
    shown = SHOWN if not encoding.get("PYTHONIOENCODING") else SHOWN.replace("é", r"\xe9")
    assert checked.stdout.count(shown) == 3
    assert r"5\x1b]0;title\x07" in checked.stdout


@contextmanager
def answering(error: bytes) -> Iterator[str]:
    """A server that answers everything with this error; yields its URL."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while self.request.recv(1 << 16):
                self.request.sendall(b"-ERR %b\r\n" % error)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"redis://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()


def test_what_a_server_says_is_written_in_one_harmless_line(start_exporter: StartExporter) -> None:
    """It need not be Redis; and the errors of a Redis may contain names."""
    with answering(EVIL.replace("\r", "").replace("\n", "").encode() + b"!" * 100_000) as url:
        checked = check(url, PYTHONIOENCODING="ascii")
        exporter = start_exporter(url, ready=False)
        [line] = eventually(lambda: exporter.lines("Redis is unavailable"))
    assert checked.returncode == 2
    for text in (checked.stderr, exporter.log):
        assert r"mail\x1b[2J\x00\x9b\u202e\u2066 " in text.replace("\\\\", "\\")
        assert not OBEYED.search(text)
        assert max(map(len, text.splitlines())) < 1000
    assert len(checked.stderr.splitlines()) == 1
    assert len(line["reason"]) < 1000


LOG = """
import logging, sys
from exporter import logs
from exporter.settings import LogSettings
logs.configure(LogSettings(format=sys.argv[1]))
log = logging.getLogger("x")
evil = sys.argv[2].encode("ascii").decode("unicode_escape")
log.warning("found " + evil, extra={"queue": evil + "\\udcff" + "\\x00", "count": 3})
try:
    raise ValueError(evil)
except ValueError:
    log.exception("failed")
"""


@pytest.mark.parametrize("log_format", ["logfmt", "json"])
def test_a_log_line_holds_nothing_that_a_terminal_obeys(log_format: str) -> None:
    """Not in messages, values or tracebacks; and each is one line."""
    evil = EVIL.encode("unicode_escape").decode()
    command = [sys.executable, "-c", LOG, log_format, evil]
    wrote = subprocess.run(
        command, env=clean_environment(), capture_output=True, text=True, check=True
    )
    lines = wrote.stderr.splitlines()
    assert len(lines) == 2
    assert not OBEYED.search(wrote.stderr)
    if log_format == "json":
        first, second = map(json.loads, lines)
        assert first["queue"] == SHOWN.replace(r"\n", "\n") + "\N{GRINNING FACE}" + r"\udcff\x00"
        assert first["count"] == 3
        assert SHOWN.replace(r"\n", "\n") in second["exception"]
        assert "Traceback (most recent call last):\n" in second["exception"]
    else:
        assert lines[0].count(SHOWN.replace("\\", r"\\").replace(r"\\n", r"\n")) == 2
