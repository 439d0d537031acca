"""Adapts how many entries one read requests."""

from __future__ import annotations

# The target cost of one read, in entries: 1,000 block Redis 7.0 for 0.5 ms. XREAD's COUNT applies
# to each stream, so it is adapted to the cost of the last read; even if all streams have entries at
# once, a read costs at most twice as much.
MAX_READ_COST = 1000
MIN_COUNT = 2
FIRST_COUNT = 10


class ReadSize:
    """The COUNT of XREAD, adapted to what reads cost."""

    def __init__(self) -> None:
        self._next = FIRST_COUNT
        self._entry_cost = 1.0  # on average, in entries without a large value
        self.count = FIRST_COUNT  # of the last read

    def begin_anew(self) -> None:
        """Start with small reads: the entries may be large."""
        self._next = FIRST_COUNT

    def choose(self, streams: int) -> int:
        """The COUNT of a read of so many streams."""
        self.count = max(MIN_COUNT, min(self._next, 2 * MAX_READ_COST // streams))
        return self.count

    def note(self, cost: int, entries: int) -> None:
        """Note the cost of a read, in entries without a large value, and how many entries it
        returned.
        """
        if entries:
            # Decreases slowly, because large values may return after a quiet time, but not for
            # long: a small COUNT means many commands for all streams.
            self._entry_cost = max(cost / entries, 0.9 * self._entry_cost, 1.0)
        if cost > MAX_READ_COST:
            self._next = self._next * MAX_READ_COST // cost
        else:
            self._next = min(int(MAX_READ_COST / self._entry_cost), self._next * 2)
        self._next = max(MIN_COUNT, self._next)
