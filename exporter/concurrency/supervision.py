"""Loops that no error ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from exporter.concurrency.retry import retry_pause
from exporter.queues.errors import StoreInvalidReply, StoreRefused, StoreUnavailable

log = logging.getLogger(__name__)

# How many different reasons are logged, each once, and after how many seconds without a failed
# round logging starts over.
MAX_REASONS = 10
REASONS_TTL_SECONDS = 60.0


async def supervise(
    what: str,
    run_round: Callable[[], Awaitable[float | None]],
    *,
    rest: Callable[[float], Awaitable[None]] | None = None,
    failed: Callable[[], None] = lambda: None,
) -> None:
    """Run round after round; each returns how many seconds to `rest` after it, or None to end.

    An error ends only its round, whatever it is: the process watches other targets, and answers
    scrapes. `what` says in the log what an error means, and `failed` is called after one.
    """
    failures = 0
    reasons = Reasons(what)
    while True:
        try:
            seconds = await run_round()
        except Exception as error:
            failures += 1
            reasons.log(error)
            failed()
            await asyncio.sleep(retry_pause(failures))
            continue
        failures = 0
        if seconds is None:
            return
        await (rest or asyncio.sleep)(seconds)


class Reasons:
    """Logs why something fails: each reason once in a while, and not many of them."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._logged: set[str] = set()
        self._forget_at = 0.0

    def log(self, error: Exception) -> None:
        now = time.monotonic()
        if now >= self._forget_at:
            self._logged.clear()
        self._forget_at = now + REASONS_TTL_SECONDS
        reason = f"{type(error).__name__}: {error}"[:1000]
        if reason in self._logged or len(self._logged) >= MAX_REASONS:
            return
        if isinstance(error, StoreRefused | StoreInvalidReply):
            log.warning(self._what, extra={"reason": str(error)})
        elif isinstance(error, StoreUnavailable):
            return  # The poll reports an outage.
        else:
            log.error(self._what, exc_info=error)
        self._logged.add(reason)
