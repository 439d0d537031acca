"""Which client a request comes from, also behind proxies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import web

Network = IPv4Network | IPv6Network

# Proxies in a row whose X-Forwarded-For is followed; a header has room for thousands.
MAX_PROXIES = 20
# `192.0.2.1:4711`, `[2001:db8::1]:4711`: some proxies (IIS, Azure) add the port of the client.
_WITH_PORT = re.compile(r"(?:\[([^]]+)]|([0-9.]+))(?::[0-9]{1,5})?")


def client_address(request: web.Request, trusted: Sequence[Network]) -> str:
    """Return the address that the last trusted proxy saw; empty if there is none.

    Each proxy appends the address that it saw to X-Forwarded-For. Everything before the first proxy
    that is not trusted may be made up.
    """
    address = parse_address(request.remote or "")
    forwarded = ",".join(request.headers.getall("X-Forwarded-For", []))
    for seen in reversed(forwarded.rsplit(",", MAX_PROXIES)[-MAX_PROXIES:]):
        parsed = parse_address(seen)
        if parsed is None or address is None or not any(address in each for each in trusted):
            break
        address = parsed
    return str(address or "")


def client_network(address: str) -> str:
    """Return the client that an address stands for: an IPv6 client often has a whole /64."""
    parsed = parse_address(address)
    if isinstance(parsed, IPv6Address):
        return str(ip_network((parsed, 64), strict=False))
    return str(parsed or "")


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an address as proxies write it, perhaps with a port; None if it is none.

    An IPv4 address that is written as IPv6 (`::ffff:192.0.2.1`, as dual-stack sockets do) is the
    IPv4 address. A zone (`%eth0`) is dropped: it can hold any text.
    """
    bare = text.strip(' \t"')
    if match := _WITH_PORT.fullmatch(bare):
        bare = match[1] or match[2]
    try:
        address = ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
