"""The replies of one poll about a queue, and their conversion to a reading; nothing here asks
Redis.

Anything in place of a number is treated as unreadable: the value is absent, and the reason is
reported.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from exporter.queues.queue import Queue, State
from exporter.queues.snapshot import QueueReading
from exporter.queues.text import MAX_LABEL_BYTES, MAX_SAFE_INTEGER, label_text, text
from exporter.stores.bullmq.limits import Meta, Window, limits_of

# A delayed job's score is its due time in ms, times this, plus a counter (BullMQ: addDelayedJob).
DELAYED_SCORE_UNIT = 4096


class Counted(NamedTuple):
    """The replies to the commands for each queue, errors included."""

    flag: Any
    wait: Any
    held: Any  # the list `paused`
    active: Any
    completed: Any
    failed: Any
    delayed: Any
    prioritized: Any
    waiting_children: Any
    schedulers: Any

    @property
    def is_idle(self) -> bool:
        """Whether there are only finished jobs; False if that is not known."""
        flag, wait, held, active, _, _, *others = self
        return flag == 0 and all(size == 0 for size in (wait, held, active, *others))

    @property
    def holds_jobs(self) -> bool:
        """Whether there are jobs or schedulers: then the queue exists, with `meta` or without."""
        return any(map(is_nonzero, self[1:]))

    @property
    def is_ambiguous(self) -> bool:
        """Whether the queue may be gone, or have been paused or resumed while it was counted.

        If a queue is not paused and has no waiting jobs, pausing it moves none.
        """
        flag, wait, held, *rest = self
        return bool(flag != 0 or wait or held or not any(map(is_nonzero, rest)))


class Edges(NamedTuple):
    """The edges of a queue as edges.lua returns them, errors included."""

    oldest_waiting: float | None = None  # ms
    limiter: Window | None = None
    wait_marked: int = 0
    held_marked: int = 0
    oldest_active: Any = None
    oldest_active_locked: Any = None
    next_delayed: Any = None
    runs: Sequence[Any] | None = None
    heartbeat: Any = None
    oldest_waiting_children: Any = None

    @property
    def next_runs(self) -> list[tuple[bytes, bytes]]:
        """Schedulers, and when they run next (ms)."""
        runs = self.runs or ()
        return list(zip(runs[::2], runs[1::2], strict=True))


NOTHING = Edges()


class Sample(NamedTuple):
    """The replies of one poll about one queue."""

    counted: Counted
    edges: Edges
    meta: Meta


def is_nonzero(size: Any) -> bool:
    return isinstance(size, int) and size > 0


def exposed_schedulers(counted: Counted | None, edges: Edges) -> tuple[bytes, ...]:
    """The exposed schedulers of a queue that has more; none if a name may be shortened, because
    that scheduler could not be found by it.
    """
    runs = edges.runs
    number: Any = counted.schedulers if counted is not None else None
    if not isinstance(runs, list) or not is_nonzero(number) or len(runs) >= 2 * number:
        return ()
    names = tuple(runs[::2])
    return names if max(map(len, names), default=0) < MAX_LABEL_BYTES else ()


def counts_of(counted: Counted, unreadable: list[tuple[str, str]]) -> dict[State, int]:
    """Jobs by state; what could not be read goes to `unreadable`.

    Up to 5.x pausing renames `wait` to `paused`; from 6.0 jobs stay in `wait` and only the flag is
    set. Either way a job that is not taken until the queue is resumed counts as paused.
    """
    for size in counted:
        _count(size)
    flag, wait, held = counted.flag, counted.wait, counted.held
    waiting, paused = wait, held
    if isinstance(flag, Exception):
        waiting = paused = flag
    elif flag:
        waiting = 0
        if isinstance(wait, Exception):
            waiting = paused = wait
        elif not isinstance(held, Exception):
            paused = held + wait
    counts: dict[State, int] = {}
    for state, count in (
        (State.ACTIVE, counted.active),
        (State.COMPLETED, counted.completed),
        (State.FAILED, counted.failed),
        (State.DELAYED, counted.delayed),
        (State.WAITING, waiting),
        (State.PAUSED, paused),
        (State.PRIORITIZED, counted.prioritized),
        (State.WAITING_CHILDREN, counted.waiting_children),
    ):
        if isinstance(count, Exception):
            unreadable.append((state, str(count)))
        else:
            counts[state] = count
    return counts


def _count(size: Any) -> Any:
    """A whole number, or the error in its place. Raises ValueError for anything else, which no
    server sends.
    """
    if isinstance(size, Exception) or (type(size) is int and size >= 0):
        return size
    raise ValueError(f"{str(size)[:40]!r} is no count")


def _less_marker(size: Any, marked: int) -> Any:
    """Subtract the marker that lists could end in before BullMQ 5.0: it is not a job."""
    return max(size - 1, 0) if marked and isinstance(size, int) else size


def reading_of(queue: Queue, sample: Sample) -> QueueReading:
    """Convert a sample to a reading. Unreadable values are absent and named."""
    counted, edges, meta = sample
    unreadable: list[tuple[str, str]] = []

    def readable(what: str, value: Any) -> Any:
        if isinstance(value, Exception):
            unreadable.append((what, str(value)))
            return None
        return value

    def number(what: str, value: Any) -> float | None:
        value = readable(what, value)
        if value is None:
            return None
        try:
            read = float(value)
        except ValueError:
            read = math.nan
        if math.isfinite(read):
            return read
        unreadable.append((what, f"{text(value)[:40]!r} is not a number"))
        return None

    def seconds(what: str, value: Any, unit: int = 1000) -> float | None:
        read = number(what, value)
        if read is None:
            return None
        # Milliseconds are whole numbers: the rest of a score is a counter.
        milliseconds = read // (unit // 1000)
        if abs(milliseconds) <= MAX_SAFE_INTEGER:
            return milliseconds / 1000
        unreadable.append((what, f"{read:g} is no time"))
        return None

    def scheduler_runs() -> Iterator[tuple[str, float]]:
        # By the name as it is shown: two samples with the same labels would be one too many.
        times = {label_text(name): seconds("scheduler", at) for name, at in edges.next_runs}
        return ((name, at) for name, at in times.items() if at is not None)

    paused = readable("paused", counted.flag)
    version = readable("version", meta.version)
    jobs = counted._replace(
        wait=_less_marker(counted.wait, edges.wait_marked),
        held=_less_marker(counted.held, edges.held_marked),
    )
    return QueueReading(
        queue=queue,
        counts=counts_of(jobs, unreadable),
        paused=None if paused is None else bool(paused),
        version=None if version is None else label_text(version),
        oldest_waiting=seconds("oldest waiting", edges.oldest_waiting),
        oldest_active=seconds("oldest active", edges.oldest_active),
        oldest_active_locked=(
            None if edges.oldest_active_locked is None else bool(edges.oldest_active_locked)
        ),
        next_delayed=seconds("next delayed", edges.next_delayed, 1000 * DELAYED_SCORE_UNIT),
        schedulers=readable("schedulers", _count(counted.schedulers)),
        scheduler_runs=tuple(scheduler_runs()),
        some_schedulers=exposed_schedulers(counted, edges),
        heartbeat=seconds("heartbeat", edges.heartbeat),
        limits=limits_of(meta, edges.limiter, number),
        oldest_waiting_children=seconds(
            "oldest waiting for children", edges.oldest_waiting_children
        ),
        unreadable=tuple(unreadable),
    )
