"""Whom a request comes from: nobody can claim to be somebody else."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from exporter.web.client_address import MAX_PROXIES, client_address, client_network, parse_address

TRUSTED = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


def seen(remote: str | None, *forwarded: str) -> str:
    headers = CIMultiDict([("X-Forwarded-For", each) for each in forwarded])
    request = make_mocked_request("GET", "/", headers=headers).clone(remote=remote or "")
    return client_address(request, TRUSTED)


@pytest.mark.parametrize(
    ("remote", "forwarded", "address"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        # A client's own header says nothing.
        ("192.0.2.1", ["203.0.113.9"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        # The proxy appends; what stands before may be made up.
        ("10.0.0.1", ["198.51.100.7, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.7", "203.0.113.9"], "203.0.113.9"),
        # Proxies in a row.
        ("10.0.0.1", ["203.0.113.9, 10.0.0.3, 10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        # What is no address ends the search where it stands.
        ("10.0.0.1", ["203.0.113.9, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [",,"], "10.0.0.1"),
        # Of IPv6, with ports, as IPv4 within IPv6.
        ("fd00::1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["203.0.113.9:80"], "203.0.113.9"),
        # A Unix socket has no address.
        (None, ["203.0.113.9"], ""),
    ],
)
def test_the_client_is_whom_the_last_trusted_proxy_saw(
    remote: str | None, forwarded: list[str], address: str
) -> None:
    assert seen(remote, *forwarded) == address


def test_a_header_of_thousands_of_proxies_is_followed_a_little() -> None:
    chain = ["203.0.113.9", *(["10.0.0.2"] * MAX_PROXIES)]
    assert seen("10.0.0.1", ", ".join(chain)) == "10.0.0.2"
    assert seen("10.0.0.1", ", ".join(chain[:-1])) == "203.0.113.9"
    assert seen("10.0.0.1", ",".join(["203.0.113.9"] * 100_000)) == "203.0.113.9"


@pytest.mark.parametrize(
    ("written", "address"),
    [
        (' "192.0.2.1" ', "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:DB8::1]:4711", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("fe80::1%<script>", "fe80::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ],
)
def test_an_address_as_proxies_write_it(written: str, address: str) -> None:
    assert str(parse_address(written)) == address


@pytest.mark.parametrize(
    "written",
    ["", "unknown", "_hidden", "192.0.2", "192.0.2.256", "192.0.2.1:port", "192.0.2.1:123456",
     "[192.0.2.1", "2001:db8::1:", "[2001:db8::1]4711", "01.2.3.4", "1.2.3.4, 5.6.7.8"],
)  # fmt: skip
def test_what_is_no_address_is_none(written: str) -> None:
    assert parse_address(written) is None


def test_addresses_of_one_client_are_one() -> None:
    assert client_network("192.0.2.1") == "192.0.2.1"
    assert client_network("2001:db8::1") == client_network("2001:db8::ffff:1") == "2001:db8::/64"
    assert client_network("2001:db8:0:1::1") != client_network("2001:db8::1")
    assert client_network("::ffff:192.0.2.1") == "192.0.2.1"
    assert client_network("") == ""
