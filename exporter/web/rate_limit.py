"""At most so many requests a minute from each address, and so many wrong credentials."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from cachetools import TTLCache

WINDOW = 60.0  # seconds, as Open Archiver's default
LOCKOUT = 300.0  # seconds
# Addresses remembered at once; beyond, the one seen longest ago is forgotten.
ADDRESSES = 10_000


@dataclass(slots=True)
class _Window:
    began: float
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left to an address in its window; `reset` in whole seconds."""

    allowed: bool
    limit: int
    remaining: int
    reset: int

    @property
    def headers(self) -> dict[str, str]:
        """The headers that Open Archiver's express-rate-limit sends (draft 6)."""
        headers = {
            "RateLimit-Policy": f"{self.limit};w={WINDOW:.0f}",
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset),
        }
        return headers if self.allowed else headers | {"Retry-After": str(self.reset)}


def _client(address: str) -> str:
    """Whom an address stands for: one client of IPv6 commonly has a whole /64."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(parsed) if parsed.version == 4 else str(ip_network((parsed, 64), strict=False))


class RateLimit:
    """Counts in windows that begin with an address's first request."""

    def __init__(self, limit: int, window: float = WINDOW) -> None:
        self._limit, self._length = limit, window
        self._windows: TTLCache[str, _Window] = TTLCache(ADDRESSES, window, timer=time.monotonic)

    def take(self, address: str) -> Allowance:
        """Count one request of this address."""
        now = time.monotonic()
        client = _client(address)
        window = self._windows.get(client)
        if window is None:
            window = self._windows[client] = _Window(now)
        window.requests += 1
        return self._allowance(window, now, allowed=window.requests <= self._limit)

    def look(self, address: str) -> Allowance:
        """What a further request of this address would get; nothing is counted."""
        now = time.monotonic()
        window = self._windows.get(_client(address)) or _Window(now)
        return self._allowance(window, now, allowed=window.requests < self._limit)

    def _allowance(self, window: _Window, now: float, *, allowed: bool) -> Allowance:
        return Allowance(
            allowed=allowed,
            limit=self._limit,
            remaining=max(self._limit - window.requests, 0),
            # Not `began + length - now`: of floats, that is more than `length` at times.
            reset=max(math.ceil(self._length - (now - window.began)), 1),
        )
