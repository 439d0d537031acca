"""Runs the collectors of a target."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from exporter.queues.errors import StoreInvalidReply, StoreRefused, StoreUnavailable
from exporter.queues.queue import Queue
from exporter.queues.remark import Remark
from exporter.queues.snapshot import CollectorRun, QueueReading, SlowFacts
from exporter.stores.base import Collector

log = logging.getLogger(__name__)

# A collector that is still running is cancelled after its time limit, multiplied by this.
GRACE = 1.25


class Collectors:
    """Runs collectors that are due, one after the other.

    One that fails or takes too long has no facts until it next succeeds; neither the others nor the
    poll are harmed.
    """

    def __init__(
        self,
        collectors: Sequence[Collector],
        understanding: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._collectors, self._understanding = collectors, understanding
        self._due: dict[str, float] = {}  # monotonic
        self._refused: dict[str, str] = {}  # why, by the collector's name
        self.facts = SlowFacts()

    async def run_due(self, readings: Sequence[QueueReading], *, seconds: float) -> SlowFacts:
        """Run the collectors that are due, and return all facts; each has `seconds` to run, and is
        cancelled a little later.
        """
        for collector in self._collectors:
            began = time.monotonic()
            if began < self._due.get(collector.name, 0.0):
                continue
            found = await self._run(collector, readings, seconds)
            took = time.monotonic() - began
            run = CollectorRun(success=found is not None, duration=took)
            self._due[collector.name] = began + max(collector.interval, took / collector.max_share)
            self.facts = self.facts.after(collector.name, run, found)
        return self.facts

    def expire(self) -> None:
        """Drop all facts: every collector is due."""
        self._due.clear()
        self.facts = SlowFacts(self.facts.version + 1)

    def forget(self) -> None:
        """Expire, and forget what collectors remember of what Redis has answered."""
        self.expire()
        for collector in self._collectors:
            collector.forget()

    def remarks(self) -> Iterator[Remark]:
        """What Redis refuses, and the consequences."""
        for collector in self._collectors:
            if (reason := self._refused.get(collector.name)) is not None:
                yield _refusal(collector, reason)

    async def _run(
        self, collector: Collector, readings: Sequence[QueueReading], seconds: float
    ) -> Mapping[Queue, Any] | None:
        try:
            with self._understanding():
                async with asyncio.timeout(GRACE * seconds):
                    found = await collector.collect(readings, seconds=seconds)
        except (StoreRefused, StoreInvalidReply) as error:
            if collector.name not in self._refused:
                remark = _refusal(collector, str(error))
                log.log(remark.level, remark.what, extra={"detail": remark.detail})
            self._refused[collector.name] = str(error)
            return None
        except (StoreUnavailable, TimeoutError) as error:
            reason = str(error) or f"it took over {seconds:.1f} s"
            details = {"collector": collector.name, "reason": reason}
            log.debug("a collector failed", extra=details)
            return None
        if self._refused.pop(collector.name, None) is not None:
            log.info("a collector succeeds again", extra={"collector": collector.name})
        return found


def _refusal(collector: Collector, reason: str) -> Remark:
    return Remark(logging.WARNING, collector.problem, f"{reason}; {collector.consequence}")
