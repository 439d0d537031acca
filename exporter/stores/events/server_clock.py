"""The clock of the server that writes events, derived from their ids: the host's own may be wrong,
or stepped.
"""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

from exporter.queues.text import MAX_SAFE_INTEGER

# Number of minutes with events whose leads (see Lead) are kept: a stepped clock is forgotten after
# them.
LEAD_MINUTES = 60
# By how much they may differ (ms): reads are usually delayed by less.
MAX_LEAD_SPREAD_MS = 10_000


class Lead(NamedTuple):
    """By how much the monotonic clock was ahead of the server's (ms), or a little more, from events
    that were read as soon as they were written: the lowest and the highest value within one minute.
    An id is ahead of the server's clock if that was stepped back, or if somebody chose the id.
    """

    minute: int  # monotonic
    lowest: float
    highest: float


class ServerClock:
    """Converts the monotonic clock to the server's, as far as it is known from events."""

    def __init__(self) -> None:
        self._leads: deque[Lead] = deque(maxlen=LEAD_MINUTES)

    def note_event(self, written: int) -> None:
        """Note the time (ms, by the server's clock) of an event that was written just now."""
        if written > MAX_SAFE_INTEGER:
            return  # no clock's time
        now = time.monotonic()
        minute, lead = int(now // 60), 1000 * now - written
        lowest = highest = lead
        if self._leads and self._leads[-1].minute == minute:
            before = self._leads.pop()
            lowest, highest = min(before.lowest, lead), max(before.highest, lead)
        self._leads.append(Lead(minute, lowest, highest))

    @property
    def offset(self) -> float | None:
        """By how much the host's clock is ahead of the server's (seconds), or a little more."""
        if not self._leads or self._leads[-1].highest - self._leads[-1].lowest > MAX_LEAD_SPREAD_MS:
            return None
        return round(time.time() - time.monotonic() + self._leads[-1].lowest / 1000, 3)

    @property
    def is_known(self) -> bool:
        """Whether its time is known from ids of events that agree."""
        if not self._leads:
            return False
        highest = max(each.highest for each in self._leads)
        lowest = min(each.lowest for each in self._leads)
        return highest - lowest <= MAX_LEAD_SPREAD_MS

    def at(self, monotonic: float) -> int:
        """Convert a time of the monotonic clock (ms) to the server's clock, or a little earlier; to
        the host's clock before any event was read as soon as it was written.

        If ids disagree, the earliest time: with a later one, events before it would not be counted.
        None is counted twice, because no counter that is still known has them.
        """
        lead = max((each.highest for each in self._leads), default=to_monotonic(0))
        return min(max(0, int(monotonic - lead)), MAX_SAFE_INTEGER)


def to_monotonic(at: int) -> float:
    """Convert a time of the host's clock to the monotonic one, in ms."""
    return at - 1000 * (time.time() - time.monotonic())
