"""The clock of the server that writes events, as they show it: the host's own may be wrong, or
stepped.
"""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

from exporter.queues.text import MAX_SAFE_INTEGER

# Minutes with events whose leads (see Lead) are kept: a stepped clock is forgotten after them.
LEAD_MINUTES = 60
# By how much they may differ (ms): a read is later by less, as a rule.
MAX_LEAD_SPREAD_MS = 10_000


class Lead(NamedTuple):
    """By how much the monotonic clock was ahead of the server's (ms), or a little more: from events
    that were read as soon as they were written. The least and the most within one minute: an id is
    ahead of the server's clock where that was stepped back, or somebody chose it.
    """

    minute: int  # monotonic
    least: float
    most: float


class ServerClock:
    """Converts the monotonic clock to the server's, as far as events have shown it."""

    def __init__(self) -> None:
        self._leads: deque[Lead] = deque(maxlen=LEAD_MINUTES)

    def note_event(self, written: int) -> None:
        """Note by what time of the server's clock (ms) an event came that was written just now."""
        if written > MAX_SAFE_INTEGER:
            return  # no clock's time
        now = time.monotonic()
        minute, lead = int(now // 60), 1000 * now - written
        least = most = lead
        if self._leads and self._leads[-1].minute == minute:
            before = self._leads.pop()
            least, most = min(before.least, lead), max(before.most, lead)
        self._leads.append(Lead(minute, least, most))

    @property
    def offset(self) -> float | None:
        """By how much the host's clock is ahead of the server's (seconds), or a little more."""
        if not self._leads or self._leads[-1].most - self._leads[-1].least > MAX_LEAD_SPREAD_MS:
            return None
        return round(time.time() - time.monotonic() + self._leads[-1].least / 1000, 3)

    @property
    def is_known(self) -> bool:
        """Whether the ids of events show its time, and agree."""
        if not self._leads:
            return False
        most = max(each.most for each in self._leads)
        least = min(each.least for each in self._leads)
        return most - least <= MAX_LEAD_SPREAD_MS

    def at(self, monotonic: float) -> int:
        """A time of the monotonic clock (ms) by that of the server, as ids of events have it, or a
        little earlier; by the host's clock before any event was read as it came.

        Where ids disagree, the earliest time: what came after a later one would not be counted, and
        what is read by it was in no counter that is still known.
        """
        lead = max((each.most for each in self._leads), default=to_monotonic(0))
        return min(max(0, int(monotonic - lead)), MAX_SAFE_INTEGER)


def to_monotonic(at: int) -> float:
    """A time of the host's clock by the monotonic one, in ms."""
    return at - 1000 * (time.time() - time.monotonic())
