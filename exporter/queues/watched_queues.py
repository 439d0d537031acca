"""Which queues of a target are watched now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from exporter.queues.queue import Queue, queues_of_key
from exporter.queues.text import shorten, text


class WatchedQueues:
    """The queues of one target. The watcher decides on them; all others only read.

    `configured` are watched even if they do not exist; `limit` is how many may be watched. With
    `named` these are all: nothing is searched for.
    """

    def __init__(
        self, configured: Iterable[Queue] = (), *, limit: int = 1, named: bool = False
    ) -> None:
        self.configured = frozenset(configured)
        # When the search began that found `queues`, epoch ms; None if all are named.
        self.searched_at: int | None = None
        self.left_out: frozenset[Queue] = frozenset()  # beyond the limit
        self._limit = limit
        self._queues: tuple[Queue, ...] | None = None
        self._by_key: Mapping[str, Queue] = {}
        # Queues that were beyond the limit before they were watched: when last (epoch ms).
        self._admitted: Mapping[Queue, int] = {}
        if named:
            self.set(tuple(sorted(self.configured, key=lambda queue: queue.base)))

    @property
    def queues(self) -> tuple[Queue, ...] | None:
        """The queues that are watched now, None before the first discovery."""
        return self._queues

    @property
    def by_key(self) -> Mapping[str, Queue]:
        """The watched queues by the beginning of their keys, without the last colon."""
        return self._by_key

    def find(self, name: str, prefix: str | None) -> list[Queue]:
        """The queues of this name, as it is shown; of all prefixes if that is None."""
        # By the name as it is shown, the only way to request one that is not UTF-8.
        return [
            queue
            for queue in self._queues or ()
            if queue.name == shorten(name) and prefix in (None, queue.prefix)
        ]

    def includes(self, queue: Queue) -> bool:
        """Whether the queue is watched now."""
        return self._by_key.get(text(queue.base[:-1])) == queue

    def jobs_of_key(self, key: bytes) -> list[tuple[Queue, bytes]]:
        """The watched queues, and ids in them, of which this may be a job's key."""
        return [(queue, job_id) for queue, job_id in queues_of_key(key, self._by_key) if job_id]

    def not_watched_until(self, queue: Queue) -> int | None:
        """When a queue was last unwatched because of the limit, epoch ms; None for a new one.

        Earlier events of it do not count.
        """
        return self._admitted.get(queue)

    def choose(self, found: Iterable[Queue], alive: Iterable[Queue]) -> tuple[Queue, ...]:
        """Return at most `limit` of those found, alive or configured, sorted; `left_out` are the
        others.

        Those that are `alive` are watched already and stay: a new queue must not remove the series
        of others.
        """
        before = {*alive, *self.configured}
        ordered = sorted({*found, *before}, key=lambda queue: (queue not in before, queue.base))
        queues = tuple(sorted(ordered[: self._limit], key=lambda queue: queue.base))
        left_out = frozenset(ordered[self._limit :])
        if self.searched_at is not None and (self.left_out or self._admitted):
            new = {queue: self.searched_at for queue in self.left_out.intersection(queues)}
            kept = self._admitted.keys() & set(queues)
            self._admitted = {queue: self._admitted[queue] for queue in kept} | new
        self.left_out = left_out
        return queues

    def set(self, queues: tuple[Queue, ...]) -> None:
        """Watch these from now on."""
        self._queues = queues
        self._by_key = {text(each.base[:-1]): each for each in queues}
