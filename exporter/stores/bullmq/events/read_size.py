"""How many entries one read asks for."""

from __future__ import annotations

# How much one read should cost, in entries: 1,000 hold Redis 7.0 for 0.5 ms. XREAD's COUNT holds
# for each stream, so it is adapted to what the last read cost; and even if all streams have
# something at once, it is at most twice as much.
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
        """Read little first: what comes may be large."""
        self._next = FIRST_COUNT

    def choose(self, streams: int) -> int:
        """The COUNT of a read of so many streams."""
        self.count = max(MIN_COUNT, min(self._next, 2 * MAX_READ_COST // streams))
        return self.count

    def note(self, cost: int, entries: int) -> None:
        """Note what a read has cost, in entries without a large value, and brought."""
        if entries:
            # Decreases slowly, because large values may return after a quiet time, but not for
            # long: a small COUNT means many commands for all streams.
            self._entry_cost = max(cost / entries, 0.9 * self._entry_cost, 1.0)
        if cost > MAX_READ_COST:
            self._next = self._next * MAX_READ_COST // cost
        else:
            self._next = min(int(MAX_READ_COST / self._entry_cost), self._next * 2)
        self._next = max(MIN_COUNT, self._next)
