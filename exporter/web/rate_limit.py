"""A limit on requests in a window of time, for each of many clients."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable
from dataclasses import dataclass

from cachetools import TTLCache

WINDOW = 60.0  # seconds, as Open Archiver's default
# Maximum number of clients that are remembered; beyond it the one seen longest ago is forgotten.
CLIENTS = 10_000


@dataclass(slots=True)
class _Window:
    began: float
    used: int = 0


@dataclass(frozen=True, slots=True)
class Allowance:
    """What remains for a client in its window; `reset` is in whole seconds."""

    limit: int
    used: int
    reset: int

    @property
    def allowed(self) -> bool:
        return self.used <= self.limit

    @property
    def headers(self) -> dict[str, str]:
        """The headers that Open Archiver's express-rate-limit sends (draft 6)."""
        return {
            "RateLimit-Policy": f"{self.limit};w={WINDOW:.0f}",
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(max(self.limit - self.used, 0)),
            "RateLimit-Reset": str(self.reset),
        }


class RateLimit:
    """Counts requests in windows that begin with a client's first one."""

    def __init__(self, limit: int, window: float = WINDOW) -> None:
        self._limit, self._length = limit, window
        self._windows: TTLCache[Hashable, _Window] = TTLCache(CLIENTS, window, timer=time.monotonic)

    def take(self, client: Hashable) -> Allowance:
        """Count one request of this client."""
        now = time.monotonic()
        window = self._windows.get(client)
        if window is None:
            window = self._windows[client] = _Window(now)
        window.used += 1
        # Not `began + length - now`, which for floats is sometimes more than `length`.
        reset = max(math.ceil(self._length - (now - window.began)), 1)
        return Allowance(self._limit, window.used, reset)
