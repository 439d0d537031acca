"""Clients that open connections without end, and clients that do not read what they asked for."""

from __future__ import annotations

import asyncio
import errno
import random
import select
import socket
import ssl
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import pytest
import trustme
from aiohttp import web

from exporter.web import connections as ports
from exporter.web.connections import (
    ACCEPT_BATCH_SIZE,
    CHECK_INTERVAL_SECONDS,
    MAX_CHECKS_WITHOUT_PROGRESS,
    MAX_CONNECTIONS,
    MIN_CONNECTIONS,
    connections_per_port,
)
from tests.support.exporters import API_KEY, Exporter, StartExporter
from tests.support.http_client import Client
from tests.support.servers import Server
from tests.support.waiting import eventually

PATH = "/v1/jobs/queues"
LIMIT_LINE = "connections were closed or refused"


def client_hello() -> bytes:
    """What a client sends first over TLS."""
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="exporter.internal")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


HELLO = client_hello()


def connect(client: Client, *, receive_buffer: int | None = None) -> socket.socket:
    url = urlsplit(client.url)
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(60)
    sock.connect((url.hostname, url.port))
    return sock


def request(path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: x", f"X-API-KEY: {API_KEY}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@contextmanager
def connections(clients: list[Client], number: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """So many connections to each, on which this was sent and whose responses nobody reads."""
    with ExitStack() as stack:
        opened = []
        for client in clients * number:
            opened.append(stack.enter_context(connect(client)))
            if sent:
                # Those that were closed for others are the subject, not a failure.
                try:
                    opened[-1].sendall(sent)
                except OSError:
                    continue
        yield opened


def assert_serves(exporter: Exporter) -> None:
    """Everybody else is answered: probes, a scraper, users of the API."""
    assert exporter.metrics.get("/-/healthy").status == 200
    assert exporter.metrics.get("/-/ready").status == 200
    assert exporter.metrics.value("bullmq_up") == 1
    assert exporter.api.get(PATH).status == 200


async def test_a_port_without_files_accepts_no_more_once_it_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class OutOfFiles(socket.socket):
        def accept(self) -> NoReturn:
            nonlocal attempts
            attempts += 1
            if attempts == 3:
                has_tried_again.set()
            raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(ports, "ACCEPT_RETRY_SECONDS", 0.01)
    attempts, has_tried_again = 0, asyncio.Event()
    with OutOfFiles() as listening, socket.socket() as client:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        connections = ports.Connections(
            "metrics.listen",
            listening,
            web.Server(lambda _: web.Response()),  # type: ignore[arg-type]
            limit=10,
            max_line_bytes=8190,
            tls=None,
            stays_half_open=True,
            client_of=str,
            busy=web.Response,
        )
        connections.start()
        client.connect(listening.getsockname())
        await has_tried_again.wait()
        connections.stop()
        await asyncio.sleep(0.1)
        assert attempts == 3


@pytest.mark.parametrize("sent", [b"", request("/")], ids=["silent", "idle"])
@pytest.mark.parametrize("files", [64, 1024])
def test_connections_without_end_keep_nobody_out(
    server: Server, start_exporter: StartExporter, files: int, sent: bytes
) -> None:
    """Idle ones are closed for new ones; files are left for Redis, and the log has one line."""
    exporter = start_exporter(server.url, files=files)
    with connections([exporter.metrics, exporter.api], 520, sent):
        for _ in range(5):
            assert_serves(exporter)
        eventually(lambda: exporter.lines(LIMIT_LINE))
        # Nothing of it is left once the polls that were made meanwhile are known.
        polls = exporter.metrics.value("bullmq_exporter_poll_duration_seconds_count") or 0
        eventually(
            lambda: (
                (exporter.metrics.value("bullmq_exporter_poll_duration_seconds_count") or 0)
                > polls + 3
            )
        )
    assert exporter.outages == []
    assert "Traceback" not in exporter.log
    assert len(exporter.lines(LIMIT_LINE)) <= 2  # one of each port
    assert {line["what"] for line in exporter.lines(LIMIT_LINE)} <= {"metrics", "api"}
    assert exporter.terminate() == 0


@pytest.mark.parametrize("sent", [HELLO[:20], HELLO], ids=["cut", "hello"])
def test_handshakes_without_end_keep_nobody_out(
    server: Server, start_exporter: StartExporter, tmp_path: Path, sent: bytes
) -> None:
    """A connection counts before TLS is agreed upon."""
    authority = trustme.CA()
    variables, context = serve_over_tls(authority, tmp_path)
    exporter = start_exporter(server.url, files=64, ready=False, **variables)

    def scrape() -> int:
        url = f"{exporter.metrics.url}/metrics"
        with urllib.request.urlopen(url, context=context, timeout=60) as page:
            return int(page.status)

    eventually(lambda: exporter.metrics.url)
    with connections([exporter.metrics], 100, sent):
        for _ in range(5):
            assert scrape() == 200
        eventually(lambda: exporter.lines(LIMIT_LINE))
    assert exporter.terminate() == 0
    assert "Traceback" not in exporter.log


def serve_over_tls(authority: trustme.CA, directory: Path) -> tuple[dict[str, str], ssl.SSLContext]:
    """The settings of a metrics port with TLS, and what a client needs for it."""
    made = authority.issue_cert("127.0.0.1")
    key, certificate = directory / "key.pem", directory / "cert.pem"
    made.private_key_pem.write_to_path(key)
    made.cert_chain_pems[0].write_to_path(certificate)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return {
        "EXPORTER_METRICS_TLS_CERT": str(certificate),
        "EXPORTER_METRICS_TLS_KEY": str(key),
    }, context


def answer_to_half_closed(exporter: Exporter, sent: bytes) -> bytes:
    """What a scraper is sent that ends its side once it has asked."""
    with connect(exporter.metrics, receive_buffer=4096) as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(1 << 16), b""))


def test_a_scraper_that_ends_its_side_once_it_has_asked_is_answered(
    server: Server, start_exporter: StartExporter
) -> None:
    """As `nc -N` does."""
    fill_page(server, schedulers=100)
    exporter = start_exporter(server.url)
    eventually(lambda: len(exporter.metrics.get("/metrics").body) > 2_000_000)
    for asked in (b"GET /metrics HTTP/1.0\r\n\r\n", request("/metrics")):
        answer = answer_to_half_closed(exporter, asked)
        assert answer.split(b"\r\n")[0].endswith(b" 200 OK")
        assert len(answer) > 2_000_000
        assert answer.endswith(b"\n")
    both = answer_to_half_closed(exporter, 2 * request("/-/healthy"))
    assert both.count(b" 200 OK") == 2
    # A part of a request gets no answer, and is not waited for.
    assert answer_to_half_closed(exporter, request("/metrics")[:-2]) == b""
    assert answer_to_half_closed(exporter, b"") == b""
    eventually(lambda: sockets_of(exporter) == 0)


def sockets_of(exporter: Exporter) -> int:
    """How many connections to its metrics port are not closed, as the system knows them."""
    port = urlsplit(exporter.metrics.url).port
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # Established, or ended by the client alone.
    return sum(row[1].endswith(f":{port:04X}") and row[3] in ("01", "08") for row in rows)


def test_the_limit_of_open_files_is_raised(server: Server, start_exporter: StartExporter) -> None:
    exporter = start_exporter(server.url, files=600)
    limits = Path(f"/proc/{exporter.process.pid}/limits").read_text()
    [line] = [line for line in limits.splitlines() if line.startswith("Max open files")]
    assert line.split()[3:5] == ["600", "600"]


@pytest.mark.parametrize("targets", [1, 5])
@pytest.mark.parametrize("files", [64, 256, 1024, 1 << 20])
def test_connections_leave_files_for_redis(files: int, targets: int) -> None:
    each = connections_per_port(files, targets=targets)
    assert MIN_CONNECTIONS <= each <= MAX_CONNECTIONS
    if each > MIN_CONNECTIONS:
        assert 2 * (each + ACCEPT_BATCH_SIZE) + 11 * targets < files


# What fill_page() needs. Polls of all that take their time.
# The timeout: on a busy machine Redis itself is slow, which is not the subject.
FULL_PAGE = {
    "EXPORTER_MAX_SCHEDULERS": "1000",
    "EXPORTER_POLL_INTERVAL": "1",
    "EXPORTER_REDIS_TIMEOUT": "60",
}


def fill_page(server: Server, schedulers: int = 1000) -> None:
    """Schedulers that make a page of 10 MB, and of 2 MB as gzip: names that compress badly."""
    names = random.Random(17)
    with server.client() as client, client.pipeline(transaction=False) as pipe:
        for queue in range(20):
            base = f"bull:{queue}-{'q' * 150}"
            pipe.hset(f"{base}:meta", mapping={"version": "bullmq:5.56.3"})
            for _ in range(schedulers):
                name = names.randbytes(75).hex()
                pipe.zadd(f"{base}:repeat", {name: 1})
                pipe.hset(f"{base}:repeat:{name}", mapping={"name": "x", "every": 1000})
        pipe.execute()


def fill_jobs(server: Server) -> None:
    """Failed jobs that make an answer of 16 MB."""
    with server.client() as client:
        client.hset("bull:mail:meta", "version", "bullmq:5.56.3")
        for number in range(20):
            client.zadd("bull:mail:failed", {f"{number}": number})
            fields = {"name": "x", "data": f'"{"d" * 1_000_000}"', "failedReason": "r"}
            client.hset(f"bull:mail:{number}", mapping=fields)


@pytest.mark.parametrize("headers", [(), ("Accept-Encoding: gzip",)], ids=["text", "gzip"])
def test_pages_that_nobody_reads_take_no_memory(
    server: Server, start_exporter: StartExporter, headers: tuple[str, ...]
) -> None:
    fill_page(server)
    exporter = start_exporter(server.url, **FULL_PAGE)
    eventually(lambda: len(exporter.metrics.get("/metrics").body) > 5_000_000)
    peak = exporter.peak_mib
    with connections([exporter.metrics], 250, request("/metrics", *headers)):
        for _ in range(3):
            assert_serves(exporter)
        assert exporter.peak_mib < peak + 120
    assert exporter.outages == []


def test_answers_that_nobody_reads_take_a_bounded_memory(
    server: Server, start_exporter: StartExporter
) -> None:
    fill_jobs(server)
    exporter = start_exporter(server.url)
    path = f"{PATH}/mail?limit=100"
    assert len(exporter.api.get(path).body) > 15_000_000
    peak = exporter.peak_mib
    with ExitStack() as stack:
        for _ in range(10):
            for _ in range(5):
                unread = stack.enter_context(connect(exporter.api, receive_buffer=10_000))
                unread.sendall(request(path))
            # Redis's part of it takes its time: there are eight connections for it.
            eventually(lambda: exporter.api.get(path).status == 200)
        assert_serves(exporter)
        # Up to eight that are being made, each of 16 MB as read, as objects and as JSON, and 64 MiB
        # that are being sent: not 50 of them, which take over 1 GB.
        assert exporter.peak_mib < peak + 500
    assert exporter.outages == []


# A head of 1 MB whose end is missing; characters that Python keeps in four bytes each.
LARGE_VALUE = "\U0001f4e7" * 2000
LARGE_HEAD = request("/metrics", *(f"X-{n}: {LARGE_VALUE}" for n in range(120)))


@pytest.mark.parametrize("sent", [LARGE_HEAD[:-2], request("/") + LARGE_HEAD[:-2]])
def test_large_heads_take_a_bounded_memory(
    server: Server, start_exporter: StartExporter, sent: bytes
) -> None:
    exporter = start_exporter(server.url)
    peak = exporter.peak_mib
    with connections([exporter.metrics, exporter.api], 100, sent):
        assert_serves(exporter)
        assert exporter.peak_mib < peak + 100
    assert "Traceback" not in exporter.log


def test_heads_behind_a_page_that_nobody_reads_take_a_bounded_memory(
    server: Server, start_exporter: StartExporter
) -> None:
    fill_page(server)
    exporter = start_exporter(server.url, **FULL_PAGE)
    eventually(lambda: len(exporter.metrics.get("/metrics").body) > 5_000_000)
    peak = exporter.peak_mib
    with ExitStack() as stack:
        for _ in range(12):
            unread = stack.enter_context(connect(exporter.metrics))
            unread.settimeout(0.5)
            unread.sendall(request("/metrics"))
            with suppress(OSError):  # nothing more of it is read
                unread.sendall(LARGE_HEAD * 10)
        assert_serves(exporter)
        assert exporter.peak_mib < peak + 60


def test_a_head_that_is_too_large_is_answered_as_such(
    server: Server, start_exporter: StartExporter
) -> None:
    exporter = start_exporter(server.url)
    fitting = request("/", "Connection: close", *(f"X-{n}: {'x' * 7000}" for n in range(4)))
    for sent, status in ((fitting, b"200"), (LARGE_HEAD[:60_000], b"431")):
        with connect(exporter.metrics) as sock:
            sock.sendall(sent)
            assert sock.makefile("rb").readline().split()[1] == status
    # A body is dropped, and does not cost the answer.
    body = b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"b" * 100_000
    with connect(exporter.metrics) as sock:
        sock.sendall(body)
        assert sock.makefile("rb").readline().split()[1] == b"405"


def test_a_response_may_be_slow_but_not_stand_still(
    server: Server, start_exporter: StartExporter
) -> None:
    fill_page(server)
    exporter = start_exporter(server.url, **FULL_PAGE)
    eventually(lambda: len(exporter.metrics.get("/metrics").body) > 5_000_000)
    seconds = MAX_CHECKS_WITHOUT_PROGRESS * CHECK_INTERVAL_SECONDS + 5
    with (
        connect(exporter.metrics, receive_buffer=10_000) as still,
        connect(exporter.metrics, receive_buffer=10_000) as slow,
    ):
        for sock in (still, slow):
            sock.sendall(request("/metrics", "Connection: close"))
        ended = select.poll()
        ended.register(still, select.POLLERR)
        began, received = time.monotonic(), bytearray()
        while piece := slow.recv(100_000):
            received += piece
            # All of it in a longer time than a response may stand still.
            left = 5_000_000 / seconds
            time.sleep(max(0, began + len(received) / left - time.monotonic()))
        head, _, body = bytes(received).partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        assert body.endswith(b"\n")
        eventually(lambda: ended.poll(0))
    eventually(lambda: exporter.lines(LIMIT_LINE))
