"""Wrong credentials: counted, logged, and answered late if a client sends many of them."""

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
# A port's log lines of one kind in a minute, whoever tries and from wherever.
MAX_LINES_PER_MINUTE = 10
# A wrong credential too many is answered so late. Each answer that waits holds a connection, so
# only a few do, and the rest are answered at once.
DELAY_SECONDS = 1.0
MAX_DELAYED = 20


class FailedLogins:
    """The wrong credentials that were sent to one port.

    A right credential never comes here, so whoever has one gets in, whatever others at the same
    address send. `limit` 0: no client has to wait.
    """

    def __init__(self, port: str, reasons: Iterable[str], limit: int, health: Health) -> None:
        self._port, self._limit = port, limit
        self._wrong = RateLimit(limit, LOCKOUT_SECONDS)
        self._lines = RateLimit(MAX_LINES_PER_MINUTE)
        self._unlogged = Counter[str]()
        self._delayed = 0
        self._lockouts = health.lockouts.labels(port)
        # All of them exist from the start, so that the first one is an increase.
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
        """Wait before a wrong credential too many is answered."""
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
