"""Which of the queues in one Redis are Bull's; all others are BullMQ's."""

from __future__ import annotations

from collections.abc import Iterable

from exporter.queues.queue import Queue

# Exposed in place of BullMQ's version, because Bull writes none.
VERSION = b"bull"

Queues = tuple[Queue, ...]


class BullQueues:
    """The queues that are Bull's. Discovery decides on them; all others only read."""

    def __init__(self) -> None:
        self._queues: frozenset[Queue] = frozenset()
        # The last result of `split`, and its argument.
        self._split: tuple[Queues | None, frozenset[Queue], tuple[Queues, Queues]] | None = None

    def __contains__(self, queue: Queue) -> bool:
        return queue in self._queues

    def note(self, queues: Iterable[Queue], *, bull: Iterable[Queue]) -> None:
        """Note which of these `queues` are Bull's; others do not change."""
        now = (self._queues - frozenset(queues)) | frozenset(bull)
        if now != self._queues:
            self._queues = now

    def keep(self, queues: Iterable[Queue]) -> None:
        """Forget all but these."""
        self.note(self._queues.difference(queues), bull=())

    def split(self, queues: Queues | None) -> tuple[Queues | None, Queues | None]:
        """The queues of BullMQ, and those of Bull; the same objects while nothing has changed.

        None for both until it is known which queues there are.
        """
        if queues is None:
            return None, None
        last = self._split
        if last is None or last[0] is not queues or last[1] is not self._queues:
            bullmq = tuple(each for each in queues if each not in self._queues)
            bull = tuple(each for each in queues if each in self._queues)
            # Without queues of Bull, as in most installations, it is the same tuple.
            parts = (bullmq if bull else queues, bull)
            if last is not None:
                before_bullmq, before_bull = last[2]
                parts = (
                    before_bullmq if before_bullmq == parts[0] else parts[0],
                    before_bull if before_bull == parts[1] else parts[1],
                )
            self._split = last = (queues, self._queues, parts)
        return last[2]
