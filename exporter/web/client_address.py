"""Whom a request comes from, behind proxies too."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from aiohttp import web

Network = IPv4Network | IPv6Network


def client_address(request: web.Request, trusted: Sequence[Network]) -> str:
    """The address that the last proxy which is trusted saw.

    Each proxy adds whom it saw to X-Forwarded-For, at its end; what stands before the first that is
    not trusted may be made up.
    """
    address = request.remote or ""
    forwarded = ",".join(request.headers.getall("X-Forwarded-For", []))
    for seen in reversed(forwarded.split(",")):
        if not _is_in(address, trusted) or not _is_address(seen.strip()):
            break
        address = seen.strip()
    return address


def _is_in(address: str, networks: Sequence[Network]) -> bool:
    return _is_address(address) and any(ip_address(address) in network for network in networks)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
