"""When each stream is compared with what was read of it."""

from __future__ import annotations

from collections.abc import Iterable, Set

from exporter.queues.queue import Queue

# Seconds after which a stream is compared with what was read of it: one with new entries, and any
# other, which only shows whether it was created again.
CHECK_INTERVAL_SECONDS = 5.0
CHECK_ALL_INTERVAL_SECONDS = 60.0


class CheckRounds:
    """The queues whose streams are to be checked. A new round begins when all of the last one are
    checked and it is due.
    """

    def __init__(self) -> None:
        self._pending: set[Queue] = set()
        self._touched: set[Queue] = set()  # streams that were read since their round
        self._due = self._all_due = 0.0  # monotonic

    def __contains__(self, queue: Queue) -> bool:
        return queue in self._pending

    def __bool__(self) -> bool:
        return bool(self._pending)

    def begin_anew(self) -> None:
        """The next round is due, and is one of all queues."""
        self._pending, self._due, self._all_due = set(), 0.0, 0.0

    def begin_if_due(self, now: float, all_queues: Set[Queue], always: Iterable[Queue]) -> None:
        """Begin a round of the queues that were touched, and of those that are `always` in it."""
        if self._pending or now < self._due:
            return
        everything = now >= self._all_due
        self._pending = set(all_queues) if everything else self._touched | set(always)
        self._touched = set()
        self._due = now + CHECK_INTERVAL_SECONDS
        if everything:
            self._all_due = now + CHECK_ALL_INTERVAL_SECONDS

    def touch(self, queue: Queue) -> None:
        """Note that new entries of its stream were read."""
        self._touched.add(queue)

    def add(self, queues: Iterable[Queue]) -> None:
        """Add queues to check (again) in this round."""
        self._pending.update(queues)

    def remove(self, queues: Iterable[Queue]) -> None:
        """Note that these are checked."""
        self._pending.difference_update(queues)

    def forget(self, queue: Queue) -> None:
        """Forget a queue that was removed."""
        self._pending.discard(queue)
        self._touched.discard(queue)
