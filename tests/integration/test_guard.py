"""Who guesses a credential, who hides behind a proxy, who asks for too much at once."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
import weakref
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from exporter import runtime
from exporter.metrics.health import Health
from exporter.settings import SettingsError, load
from exporter.web.client_address import client_address, client_network
from exporter.web.connections import FIRST_REQUEST_SECONDS
from exporter.web.credentials import REASONS
from exporter.web.failed_logins import MAX_DELAYED, MAX_LINES_PER_MINUTE, FailedLogins
from tests.support.exporters import API_KEY, Exporter, StartExporter
from tests.support.http_client import Answer, Client
from tests.support.servers import Server
from tests.support.tokens import token
from tests.support.waiting import eventually

PATH = "/v1/jobs/queues"
NONE: Mapping[str, str] = {}
RIGHT = {"X-API-KEY": API_KEY}
WRONG = {"X-API-KEY": "wrong-key-wrong-key"}


def asking(exporter: Exporter) -> Callable[..., Answer]:
    """Asks as this client behind a trusted proxy, with this credential."""

    def ask(client: str, credential: Mapping[str, str] = NONE, path: str = PATH) -> Answer:
        headers = {"X-Forwarded-For": client} | credential
        return exporter.api.without_credentials().request("GET", path, headers)

    return ask


def test_who_guesses_has_to_wait_and_whoever_has_the_key_gets_in(
    server: Server, start_exporter: StartExporter
) -> None:
    exporter = start_exporter(
        server.url, EXPORTER_API_LOCKOUT="3", EXPORTER_API_TRUSTED_PROXIES="127.0.0.0/8"
    )
    ask = asking(exporter)
    # None of our credentials is no guess: a browser before somebody signs in, and one that sends
    # the password of a proxy in front of the API.
    for headers in (NONE, {"X-API-KEY": ""}, {"Authorization": "Basic eDp5"}):
        assert [ask("192.0.2.1", headers).status for _ in range(4)] == [401] * 4
    assert [ask("192.0.2.1", WRONG).status for _ in range(3)] == [401] * 3
    answer = ask("192.0.2.1", {"Authorization": "Bearer x.y.z"})
    assert answer.status == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 300
    assert "Too many wrong credentials" in answer.json["message"]
    # A valid credential would help at once.
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    # Who has the key, or a token, is not kept out by those at the same address.
    for right in (RIGHT, token()):
        assert ask("192.0.2.1", right).status == 200
    # In all forms of the address, and without a credential it is 401 as ever.
    for credential, is_hung_up_on in ((WRONG, True), (RIGHT, False)):
        headers = {"X-Forwarded-For": "[::ffff:192.0.2.1]:4711"} | credential
        assert exporter.api.is_hung_up_on(PATH, headers) == is_hung_up_on
    assert ask("192.0.2.1").status == 401
    # Others at other addresses are not concerned, those behind the same proxy neither.
    assert ask("192.0.2.2", WRONG).status == 401
    # The page itself holds nothing secret, and neither does its description.
    for path, status in (("/", 200), ("/openapi.json", 200), ("/nothing", 404)):
        assert ask("192.0.2.1", WRONG, path).status == status


def test_failed_logins_are_counted_and_logged_without_the_credential(
    server: Server, start_exporter: StartExporter
) -> None:
    exporter = start_exporter(
        server.url,
        EXPORTER_API_LOCKOUT="2",
        EXPORTER_API_TRUSTED_PROXIES="127.0.0.0/8",
        EXPORTER_METRICS_USER="prometheus",
        EXPORTER_METRICS_PASSWORD="the-password",
    )
    ask = asking(exporter)
    right = {"Authorization": "Basic " + b64encode(b"prometheus:the-password").decode()}
    exporter.metrics = Client(exporter.metrics.url, right)
    failed, lockouts = "bullmq_exporter_failed_logins_total", "bullmq_exporter_lockouts_total"
    # All are there before the first one, which an increase would not show otherwise.
    assert exporter.metrics.samples(failed, port="api") == {
        (reason,): 0 for reason in ("api_key", "token", "expired_token", "mfa_pending")
    }
    assert exporter.metrics.samples(failed, port="metrics") == {("password",): 0}
    assert exporter.metrics.samples(lockouts) == {("api",): 0, ("metrics",): 0}

    for _ in range(4):
        ask("192.0.2.1", WRONG)
    ask("2001:db8::1%eth0", {"Authorization": "Bearer wrong-token-wrong-token"})
    ask("2001:db8::2", token(exp=1))
    ask("2001:db8:0:1::", token(mfaPending=True))
    ask("192.0.2.9")
    counted = {("api_key",): 4, ("token",): 1, ("expired_token",): 1, ("mfa_pending",): 1}
    eventually(lambda: exporter.metrics.samples(failed, port="api") == counted)
    assert exporter.metrics.samples(lockouts) == {("api",): 1, ("metrics",): 0}
    # A client is named once, and once more when it has sent too many.
    lines = exporter.lines("a credential was refused")
    assert [(line["port"], line["client"], line["reason"]) for line in lines] == [
        ("api", "192.0.2.1", "api_key"),
        ("api", "2001:db8::1", "token"),
        ("api", "2001:db8:0:1::", "mfa_pending"),
    ]
    [line] = eventually(lambda: exporter.lines("too many wrong credentials"))
    assert line["client"] == "192.0.2.1"
    assert 1 <= line["seconds"] <= 300
    assert "wrong-" not in exporter.log


def test_guesses_from_everywhere_do_not_flood_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    health = Health()
    failed_logins = FailedLogins("api", REASONS, 1, health)
    for number in range(100):
        for _ in range(3):
            failed_logins.record(f"198.51.100.{number}", "api_key")
    count = health.registry.get_sample_value
    reason = {"port": "api", "reason": "api_key"}
    assert count("bullmq_exporter_failed_logins_total", reason) == 300
    assert count("bullmq_exporter_lockouts_total", {"port": "api"}) == 100
    logged = Counter(record.message for record in caplog.records)
    assert set(logged.values()) == {MAX_LINES_PER_MINUTE}
    assert len(logged) == 2
    # How many were left out is said a minute later.
    now += 61
    failed_logins.record("192.0.2.1", "api_key")
    failed_logins.record("192.0.2.2", "api_key")
    assert [vars(record).get("unlogged") for record in caplog.records[-2:]] == [90, None]


def test_only_few_answers_to_guesses_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each that waits holds a connection."""
    monkeypatch.setattr("exporter.web.failed_logins.DELAY_SECONDS", 3600)

    async def guess() -> None:
        failed_logins = FailedLogins("api", REASONS, 1, Health())
        waiting = [asyncio.create_task(failed_logins.delay()) for _ in range(MAX_DELAYED + 5)]
        for _ in range(3):
            await asyncio.sleep(0)
        assert sum(task.done() for task in waiting) == 5
        # Whoever hangs up makes room.
        waiting[0].cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        waiting.append(asyncio.create_task(failed_logins.delay()))
        for _ in range(3):
            await asyncio.sleep(0)
        assert not waiting[-1].done()
        for task in waiting:
            task.cancel()

    asyncio.run(guess())


def test_requests_without_a_valid_credential_use_up_nothing_of_those_with_one(
    server: Server, start_exporter: StartExporter, tmp_path: Path
) -> None:
    config = tmp_path / "exporter.yml"
    config.write_text(
        "api:\n  keys:\n"
        "  - {name: reader, key: a-key-that-may-not-much, permissions: ['read:jobs']}\n"
    )
    origin = "https://archive.example.org"
    exporter = start_exporter(
        server.url,
        "--config",
        str(config),
        EXPORTER_API_RATE_LIMIT="3",
        EXPORTER_API_CORS_ORIGINS=origin,
    )
    client = exporter.api.without_credentials()

    def statuses(path: str, headers: Mapping[str, str] = NONE) -> list[int]:
        return [client.request("GET", path, headers).status for _ in range(4)]

    assert statuses("/nothing") == [404, 404, 404, 429]
    for headers, path in ((NONE, PATH), (WRONG, PATH), (NONE, "/openapi.json")):
        answer = client.request("GET", path, headers)
        assert answer.status == 429
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert "without a valid credential" in answer.json["message"]
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert answer.headers["RateLimit-Remaining"] == "0"
    # What a browser asks before a request to another origin carries no credential.
    preflight = {
        "Origin": origin,
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "x-api-key",
    }
    for _ in range(4):
        answer = client.request("OPTIONS", PATH, preflight)
        assert answer.status == 200
        assert answer.headers["Access-Control-Allow-Origin"] == origin
    # Each holder has requests of their own.
    assert statuses(PATH, {"X-API-KEY": "a-key-that-may-not-much"}) == [403, 403, 403, 429]
    assert statuses(PATH, token(sub="anna")) == [200, 200, 200, 429]
    assert statuses(PATH, token(sub="bert")) == [200, 200, 200, 429]
    assert statuses(PATH, RIGHT) == [200, 200, 200, 429]
    answer = client.request("GET", PATH, RIGHT)
    assert answer.json["message"].startswith("Too many requests, try again in ")
    assert answer.headers["WWW-Authenticate"] is None


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
    statuses = [exporter.api.request("GET", PATH, WRONG).status for _ in range(21)]
    assert statuses == [401] * 20 + [429]
    assert exporter.api.get(PATH).status == 200


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
        ("::1", ["2001:db8::7"], "2001:db8::7"),
        # IPv4 as a dual-stack socket writes it, of the client and of the proxy.
        ("10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("::ffff:10.0.0.1", ["1.1.1.1, 198.51.100.1, ::FFFF:a00:2"], "198.51.100.1"),
        ("::ffff:192.0.2.9", ["198.51.100.1"], "192.0.2.9"),
        # With the client's port.
        ("10.0.0.1", ["1.1.1.1, 198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.1:4711 , 10.0.0.2:80"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("10.0.0.1", ["[2001:db8::7]"], "2001:db8::7"),
        ("10.0.0.1", ["[::ffff:198.51.100.1]:4711"], "198.51.100.1"),
        ("10.0.0.1", ['"[2001:DB8:0::7]:4711"'], "2001:db8::7"),
        ("10.0.0.1", ["fe80::1%eth0"], "fe80::1"),
        ("10.0.0.1", ["fe80::1%\x1b[31m\u202e"], "fe80::1"),
        # Garbage is nobody, and what stands before it may be made up.
        ("10.0.0.1", ["not an address"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1,"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1:port"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1:4711:1"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.01"], "10.0.0.1"),
        ("10.0.0.1", ["[]:80"], "10.0.0.1"),
        ("10.0.0.1", ["[2001:db8::7"], "10.0.0.1"),
        ("10.0.0.1", ["_hidden"], "10.0.0.1"),
        ("10.0.0.1", ["3325256705"], "10.0.0.1"),
        ("", ["198.51.100.1"], ""),
        # So many proxies are not followed.
        ("10.0.0.1", [", ".join(["198.51.100.1", *["10.0.0.2"] * 5000])], "10.0.0.2"),
    ],
)
def test_the_address_that_the_last_trusted_proxy_saw(
    peer: str, forwarded: list[str], address: str
) -> None:
    trusted = [ip_network("10.0.0.0/8"), ip_network("::1")]
    headers = [("X-Forwarded-For", value) for value in forwarded]
    request = make_mocked_request("GET", "/").clone(remote=peer, headers=headers)
    assert client_address(request, trusted) == address


@given(peer=st.text(), forwarded=st.lists(st.text()))
def test_no_forwarded_text_is_an_error(peer: str, forwarded: list[str]) -> None:
    headers = CIMultiDict(("X-Forwarded-For", value) for value in ["10.0.0.1", *forwarded])
    request = cast(web.Request, SimpleNamespace(remote=peer, headers=headers))
    address = client_address(request, [ip_network("0.0.0.0/0"), ip_network("::/0")])
    assert address == "" or ip_address(address)
    client_network(address)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("", "", True),
    ],
)
def test_a_client_is_an_ipv4_address_or_a_64_of_ipv6(one: str, other: str, same: bool) -> None:
    assert (client_network(one) == client_network(other)) is same


@pytest.mark.parametrize("written", ["::ffff:10.0.0.0/104", "::ffff:10.1.2.3"])
def test_a_proxy_may_be_named_as_a_dual_stack_socket_does(written: str) -> None:
    [network] = load({}, {"EXPORTER_API_TRUSTED_PROXIES": written}).api.trusted_proxies
    assert ip_address("10.1.2.3") in network
    assert ip_address("11.0.0.1") not in network


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"^EXPORTER_API_TRUSTED_PROXIES.*10\.0\.0\.0/8"):
        load({}, {"EXPORTER_API_TRUSTED_PROXIES": "proxy.internal"})


def test_connections_that_come_and_go_do_not_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They end as cycles, and all of those are looked for only once an hour otherwise."""

    class Connection:
        pass

    async def grow() -> None:
        connection = Connection()
        connection.itself = connection  # type: ignore[attr-defined]
        gc.collect()  # it is old now, as one that was open for a while
        is_gone = asyncio.Event()
        watch = weakref.ref(connection, lambda _: is_gone.set())
        del connection
        collecting = asyncio.create_task(runtime.collect_garbage())
        for _ in range(100):
            await asyncio.sleep(0.001)
        assert watch() is not None
        grown = b"x" * runtime.resident_bytes()
        async with asyncio.timeout(60):
            await is_gone.wait()
        assert grown
        collecting.cancel()

    monkeypatch.setattr(runtime, "GARBAGE_CHECK_SECONDS", 0.001)
    monkeypatch.setattr(runtime, "GARBAGE_CHECKS", 1 << 60)
    thresholds = gc.get_threshold()
    gc.disable()
    try:
        asyncio.run(grow())
    finally:
        gc.enable()
        gc.set_threshold(*thresholds)


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
            time.sleep(FIRST_REQUEST_SECONDS + 1)
        for connection in (slow, also_slow):
            connection.settimeout(60)
            assert connection.recv(1) == b""
