"""Who guesses a credential, who hides behind a proxy, who asks for too much at once."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from ipaddress import ip_network
from urllib.parse import urlsplit

import pytest
from aiohttp.test_utils import make_mocked_request

from exporter.settings import SettingsError
from exporter.settings_sources import load
from exporter.web.client_address import client_address
from exporter.web.server import FIRST_REQUEST, MOST_CONNECTIONS
from tests.conftest import API_KEY, Exporter, Server, StartExporter, eventually

PATH = "/v1/jobs/queues"
WRONG = {"X-API-KEY": "wrong-key-wrong-key"}


def test_who_guesses_is_locked_out_and_nobody_else(
    server: Server, start_exporter: StartExporter
) -> None:
    exporter = start_exporter(
        server.url, EXPORTER_API_LOCKOUT="3", EXPORTER_API_TRUSTED_PROXIES="127.0.0.0/8"
    )
    right = {"X-API-KEY": API_KEY}

    def ask(client: str, **credential: str) -> int:
        headers = {"X-Forwarded-For": client} | {
            name.replace("_", "-"): value for name, value in credential.items()
        }
        return exporter.api.without_credentials().request("GET", PATH, headers).status

    # A browser before somebody signs in brings none: that is no guess.
    assert [ask("192.0.2.1") for _ in range(5)] == [401] * 5
    assert ask("192.0.2.1", **right) == 200
    assert [ask("192.0.2.1", **WRONG) for _ in range(3)] == [401] * 3
    assert ask("192.0.2.1", Authorization="Bearer x.y.z") == 429
    answer = exporter.api.request("GET", PATH, {"X-Forwarded-For": "192.0.2.1"})
    assert answer.status == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 300
    assert "Too many wrong credentials" in answer.json["message"]
    assert ask("192.0.2.2", **right) == 200
    # The page itself holds nothing secret.
    page = exporter.api.without_credentials().request("GET", "/", {"X-Forwarded-For": "192.0.2.1"})
    assert page.status == 200


def test_guesses_are_not_limited_where_that_is_turned_off(
    server: Server, start_exporter: StartExporter
) -> None:
    exporter = start_exporter(server.url, EXPORTER_API_LOCKOUT="0")
    for _ in range(30):
        assert exporter.api.request("GET", PATH, WRONG).status == 401


def test_twenty_guesses_are_too_many_by_default(
    server: Server, start_exporter: StartExporter
) -> None:
    exporter = start_exporter(server.url, EXPORTER_API_LOCKOUT="")
    told = [exporter.api.request("GET", PATH, WRONG).status for _ in range(21)]
    assert told == [401] * 20 + [429]


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.9", [], "192.0.2.9"),
        # Nobody but a trusted proxy is believed.
        ("192.0.2.9", ["198.51.100.1"], "192.0.2.9"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        # What the client made up stands before what the proxy saw.
        ("10.0.0.1", ["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1", "198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["not an address"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("::1", ["2001:db8::7"], "2001:db8::7"),
    ],
)
def test_the_address_that_the_last_trusted_proxy_saw(
    peer: str, forwarded: list[str], address: str
) -> None:
    trusted = [ip_network("10.0.0.0/8"), ip_network("::1")]
    headers = [("X-Forwarded-For", value) for value in forwarded]
    request = make_mocked_request("GET", "/").clone(remote=peer, headers=headers)
    assert client_address(request, trusted) == address


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"^EXPORTER_API_TRUSTED_PROXIES.*10\.0\.0\.0/8"):
        load({}, {"EXPORTER_API_TRUSTED_PROXIES": "proxy.internal"})


def test_how_much_of_a_job_is_read_can_be_set(
    server: Server, start_exporter: StartExporter
) -> None:
    with server.client() as client:
        client.hset("bull:mail:meta", "version", "bullmq:5.56.3")
        for number in range(4):
            client.zadd("bull:mail:failed", {f"{number}": number})
            fields = {"name": "x", "data": '"' + "d" * 3000 + '"', "failedReason": "r" * 1000}
            client.hset(f"bull:mail:{number}", mapping=fields)
    exporter = start_exporter(
        server.url, EXPORTER_API_MAX_FIELD_BYTES="4000", EXPORTER_API_MAX_PAGE_BYTES="8000"
    )
    jobs = exporter.api.get(f"{PATH}/mail").json["jobs"]
    # First the reasons of all, then as much data as there is room for.
    assert [len(job["failedReason"]) for job in jobs] == [1000] * 4
    assert [len(job["data"]) for job in jobs] == [3000, *[len("[left out: 3002 bytes]")] * 3]


@pytest.mark.parametrize("port", ["metrics", "api"])
def test_connections_without_end_harm_neither_port(
    server: Server, start_exporter: StartExporter, port: str
) -> None:
    exporter = start_exporter(server.url)
    url = urlsplit(getattr(exporter, port).url)
    with ExitStack() as stack:
        for _ in range(MOST_CONNECTIONS + 20):
            sock = stack.enter_context(
                socket.create_connection((url.hostname or "", url.port or 0))
            )
            sock.settimeout(60)
        eventually(lambda: refused(url.port or 0))
        other = exporter.api if port == "metrics" else exporter.metrics
        assert other.get("/metrics" if port == "api" else PATH).status == 200
    eventually(lambda: serves(exporter, port))


def refused(port: int) -> bool:
    """Whether a further connection is ended at once."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(2)
        try:
            return sock.recv(1) == b""
        except TimeoutError:
            return False


def serves(exporter: Exporter, port: str) -> bool:
    return (
        exporter.metrics.get("/metrics").status == 200
        if port == "metrics"
        else exporter.api.get(PATH).status == 200
    )


def test_who_connects_and_asks_for_nothing_is_hung_up_on(
    server: Server, start_exporter: StartExporter
) -> None:
    """The first request's head: aiohttp would wait for it for ever."""
    exporter = start_exporter(server.url)
    head = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n"
    with ExitStack() as stack:
        slow, also_slow, kept = (
            stack.enter_context(socket.create_connection((url.hostname, url.port)))
            for client in (exporter.api, exporter.metrics, exporter.metrics)
            if (url := urlsplit(client.url))
        )
        for connection in (slow, also_slow):
            connection.sendall(head)
        # Who has asked may be silent for longer: a scrape comes every 15 seconds or so.
        for _ in range(2):
            kept.sendall(head + b"\r\n")
            kept.settimeout(60)
            assert b"healthy" in kept.recv(10_000)
            time.sleep(FIRST_REQUEST + 1)
        for connection in (slow, also_slow):
            connection.settimeout(60)
            assert connection.recv(1) == b""
