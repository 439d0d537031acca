"""Counts and logs wrong credentials, and delays the answers to clients that send many of them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable

from exporter.metrics.health import Health
from exporter.web.client_address import client_network
from exporter.web.rate_limit import RateLimit

log = logging.getLogger(__name__)

LOCKOUT_SECONDS = 300.0
# Maximum number of log lines of one kind per port and minute, for all clients together.
MAX_LINES_PER_MINUTE = 10
# Seconds by which the answer to one wrong credential too many is delayed. Each delayed answer holds
# a connection, so only a few are delayed, and the rest are sent at once.
DELAY_SECONDS = 1.0
MAX_DELAYED = 20


class FailedLogins:
    """The wrong credentials that were sent to one port.

    Valid credentials are never seen here, so they are accepted whatever other clients of the same
    address send. `limit` 0: no answer is delayed.
    """

    def __init__(self, port: str, reasons: Iterable[str], limit: int, health: Health) -> None:
        self._port, self._limit = port, limit
        self._wrong = RateLimit(limit, LOCKOUT_SECONDS)
        self._lines = RateLimit(MAX_LINES_PER_MINUTE)
        self._unlogged = Counter[str]()
        self._delayed = 0
        self._lockouts = health.lockouts.labels(port)
        # All series exist from the start, so that the first wrong credential is an increase.
        self._failed = {reason: health.failed_logins.labels(port, reason) for reason in reasons}

    def record(self, address: str, reason: str) -> int | None:
        """Count one wrong credential; if there were too many, return for how many seconds."""
        self._failed[reason].inc()
        wrong = self._wrong.take(client_network(address))
        # Once in five minutes for each client: a page or a script asks again and again.
        if wrong.used == 1:
            self._log("a credential was refused", client=address, reason=reason)
        if not self._limit or wrong.allowed:
            return None
        if wrong.used == self._limit + 1:
            self._lockouts.inc()
            self._log("too many wrong credentials", client=address, seconds=wrong.reset)
        return wrong.reset

    async def delay(self) -> None:
        """Wait before answering one wrong credential too many."""
        if self._delayed >= MAX_DELAYED:
            return
        self._delayed += 1
        try:
            await asyncio.sleep(DELAY_SECONDS)
        finally:
            self._delayed -= 1

    def _log(self, message: str, **facts: str | int) -> None:
        if not self._lines.take(message).allowed:
            self._unlogged[message] += 1
            return
        if unlogged := self._unlogged.pop(message, 0):
            facts["unlogged"] = unlogged  # lines like this one since the last
        log.warning(message, extra={"port": self._port, **facts})
