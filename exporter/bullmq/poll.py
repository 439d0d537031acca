"""One poll: counts, ages, schedulers and heartbeats of all queues.

Counts are read by plain commands, packed once for each queue and sent many at a time: a command so
costs Redis 7.0 0.8 µs, in a script 1.8 µs, and others are served between them. What stands at the
ends of lists is read by a script, since one has to be known to ask for the next. It is not asked of
queues that hold nothing but finished jobs, as most do at any moment.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from exporter.bullmq.batches import batched
from exporter.bullmq.connection import RedisReader, RedisRefused, Script, packed
from exporter.bullmq.keys import Queue, State, text
from exporter.bullmq.snapshot import QueueReading
from exporter.bullmq.turns import Turns

HEADS = Script("heads.lua")

# Queues whose counts are asked for at once: some 120 kB of commands.
COUNTED_AT_ONCE = 200

# Queues whose readings are made before others have their turn: 1 to 2 ms.
READ_AT_ONCE = 100

# A script holds Redis until it ends. Measured on Redis 7.0 with jobs in every state of every queue:
# 25 queues hold it 1.3 ms (p99 1.5).
HEADS_AT_ONCE = 25

# Heartbeats whose existence one command asks for.
HEARTBEATS_AT_ONCE = 25

# Seconds for which a queue's version is not read again, nor whether a queue with jobs still has its
# `meta`; an upgrade is told within this time.
VERSION_KNOWN = 60.0

# A delayed job's score is its due time in ms, times this, plus a counter (BullMQ: addDelayedJob).
DELAYED_SCORE_UNIT = 4096

# The last millisecond that JavaScript can count: Number.MAX_SAFE_INTEGER.
LATEST = 2**53 - 1

# The order of what counts_of() takes: the flag, then these.
SIZES = (
    *((b"LLEN", name) for name in (b"wait", b"paused", b"active")),
    *(
        (b"ZCARD", name)
        for name in (b"completed", b"failed", b"delayed", b"prioritized", b"waiting-children")
    ),
)
_FLAG = (b"HEXISTS", b"meta", b"paused")
# What is asked of each queue, and then of those that are in doubt (_Memory.doubtful). Pausing moves
# jobs from one list to another: if it came in between, they were counted twice or not at all.
_ASKED = (_FLAG, *SIZES, (b"ZCARD", b"repeat"))
_ASKED_IN_DOUBT = ((b"EXISTS", b"meta"), _FLAG)


class Counted(NamedTuple):
    """The answers to what is asked of each queue, errors among them."""

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


class Heads(NamedTuple):
    """What heads.lua tells of a queue, errors among it."""

    wait_marked: int = 0
    held_marked: int = 0
    oldest_waiting: Any = None
    oldest_active: Any = None
    oldest_active_locked: Any = None
    next_delayed: Any = None
    runs: Sequence[Any] = ()
    heartbeat: Any = None

    @classmethod
    def of(cls, row: Sequence[Any]) -> Heads:
        told: Iterable[Any] = (tuple(each) if isinstance(each, list) else each for each in row)
        return cls(*told)


NOTHING = Heads()


class _Memory:
    """What is remembered of a queue: its commands, and what the last poll told."""

    __slots__ = (
        *("queue", "packed", "packed_doubt", "counted", "letters", "beats", "heads"),
        *("exists", "exists_due", "version", "version_due", "read", "reading"),
    )

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.packed, self.packed_doubt = (
            b"".join(packed((command, queue.base + name, *rest)) for command, name, *rest in asked)
            for asked in (_ASKED, _ASKED_IN_DOUBT)
        )
        self.counted: Counted | None = None
        self.exists = False
        self.exists_due = 0.0
        self.letters = ""  # what they make us look at
        self.beats = False  # whether the heartbeat is there, or that of one beside it
        self.heads = NOTHING
        self.version: Any = None
        self.version_due = 0.0
        self.read: tuple[Counted, Heads, Any] | None = None  # what the reading was made from
        self.reading: QueueReading | None = None

    @property
    def told(self) -> Counted:
        assert self.counted is not None
        return self.counted

    def doubtful(self, now: float) -> bool:
        """Whether it may be gone, or may have been paused or resumed while it was counted.

        Of a queue that is not paused and has no waiting jobs pausing moves none.
        """
        flag, wait, held, *rest = self.told
        return bool(
            flag != 0 or wait or held or self.exists_due <= now or not any(map(_some, rest))
        )


class Poller:
    """Reads queues, and remembers of each what would be the same work again."""

    def __init__(
        self, redis: RedisReader, *, max_schedulers: int, turns: Turns | None = None
    ) -> None:
        self._redis = redis
        self._turns = turns or Turns()
        self._max_schedulers = max_schedulers
        self._memory: dict[Queue, _Memory] = {}

    async def poll(
        self, queues: Sequence[Queue], *, configured: frozenset[Queue]
    ) -> tuple[QueueReading, ...]:
        """A reading of each queue that exists or is configured. Raises RedisUnavailable."""
        if not queues:
            # A poll of no queues tells all the same whether Redis answers.
            await self._redis.command("PING")
        memories: list[_Memory] = []
        for asked in batched(queues, COUNTED_AT_ONCE):
            batch = [self._memory.get(queue) or _Memory(queue) for queue in asked]
            await self._count(batch)
            memories += batch
            await self._turns.give_way()
        # A second time in the same moment is not to be expected.
        for batch in batched(await self._settle_doubts(memories), COUNTED_AT_ONCE):
            await self._count(batch)
        # `meta` is gone when the queue is (Queue.obliterate).
        there = [each for each in memories if each.exists or each.queue in configured]
        await self._turns.give_way()
        await self._look_at_heads(there)
        readings: list[QueueReading] = []
        for batch in batched(there, READ_AT_ONCE):
            readings.extend(map(_read, batch))
            await self._turns.give_way()
        self._memory = {each.queue: each for each in there}
        await self._turns.give_way()
        _raise_if_refused(readings)
        return tuple(readings)

    async def _count(self, memories: Sequence[_Memory]) -> None:
        commands = [each.packed for each in memories]
        groups: list[Sequence[_Memory]] = []
        # In a cluster they are elsewhere.
        if self._redis.slot is None:
            groups = [
                memories[at : at + HEARTBEATS_AT_ONCE]
                for at in range(0, len(memories), HEARTBEATS_AT_ONCE)
            ]
            commands += [
                packed((b"EXISTS", *(each.queue.heartbeat_key for each in group)))
                for group in groups
            ]
        size = len(_ASKED)
        answers = await self._redis.packed(b"".join(commands), size * len(memories) + len(groups))
        for at, each in enumerate(memories):
            told = tuple(answers[at * size : (at + 1) * size])
            if told != each.counted:
                each.counted = Counted(*told)
                each.letters = self._letters(each.counted)
        for group, number in zip(groups, answers[size * len(memories) :], strict=True):
            for each in group:
                each.beats = bool(number)

    async def _settle_doubts(self, memories: Sequence[_Memory]) -> list[_Memory]:
        """Ask which are there; those that were paused or resumed while they were counted."""
        now = time.monotonic()
        turned: list[_Memory] = []
        size = len(_ASKED_IN_DOUBT)
        for batch in batched([each for each in memories if each.doubtful(now)], COUNTED_AT_ONCE):
            commands = b"".join([each.packed_doubt for each in batch])
            answers = iter(await self._redis.packed(commands, size * len(batch)))
            for each, exists, flag in zip(batch, answers, answers, strict=True):
                each.exists, each.exists_due = bool(exists), now + VERSION_KNOWN
                if not isinstance(flag, Exception) and flag != each.told.flag:
                    turned.append(each)
            await self._turns.give_way()
        return turned

    def _letters(self, row: Counted) -> str:
        """What to look at beside the version: heads.lua knows these letters."""
        ready = row.flag == 0 and (_some(row.wait) or _some(row.prioritized))
        return "".join(
            letter
            for letter, wanted in (
                ("w", _some(row.wait)),  # whether it ends in a marker
                ("h", _some(row.held)),  # the same of `paused`
                ("o", ready),  # since when the oldest waits
                ("p", ready and _some(row.prioritized)),
                ("a", _some(row.active)),
                ("d", _some(row.delayed)),
                ("s", self._max_schedulers and _some(row.schedulers)),
            )
            if wanted
        )

    async def _look_at_heads(self, memories: Sequence[_Memory]) -> None:
        now = time.monotonic()
        asked = []
        for each in memories:
            if each.letters or each.beats or each.version_due <= now:
                asked.append(each)
            else:
                each.heads = NOTHING
        await self._turns.give_way()
        # One batch at a time: batches sent together are run together, and hold Redis for their sum.
        for batch in batched(asked, HEADS_AT_ONCE):
            arguments: list[bytes | str | int] = [self._max_schedulers, int(time.time() * 1000)]
            for each in batch:
                arguments += (
                    each.letters + ("v" if each.version_due <= now else ""),
                    each.queue.heartbeat_key if each.beats else b"",
                )
            rows = await self._redis.run(HEADS, [each.queue.base for each in batch], arguments)
            for each, (version, *heads) in zip(batch, rows, strict=True):
                each.heads = Heads.of(heads)
                if each.version_due <= now:
                    each.version = version
                    failed = isinstance(version, Exception)
                    each.version_due = now if failed else now + VERSION_KNOWN
            await self._turns.give_way()


def _read(memory: _Memory) -> QueueReading:
    told = (memory.told, memory.heads, memory.version)
    # Most queues stand as they stood.
    if memory.reading is None or memory.read != told:
        memory.read = told
        memory.reading = _reading(memory.queue, *told)
    return memory.reading


def _some(size: Any) -> bool:
    return isinstance(size, int) and size > 0


def _raise_if_refused(readings: Iterable[QueueReading]) -> None:
    """A right that is missing for one value leaves that one out; without any it is no poll."""
    refused = [
        why
        for reading in readings
        if reading.unreadable
        for what, why in reading.unreadable
        if isinstance(what, State) and "WRONGTYPE" not in why
    ]
    if refused and not any(reading.counts for reading in readings):
        raise RedisRefused(f"Redis does not let us read: {refused[0]}")


def counts_of(told: Sequence[Any], unreadable: list[tuple[str, str]]) -> dict[State, int]:
    """Jobs by state, of the flag and SIZES; what could not be read goes to `unreadable`.

    Up to 5.x pausing renames `wait` to `paused`; from 6.0 jobs stay in `wait` and only the flag is
    set. Either way a job that is not taken until the queue is resumed counts as paused.
    """
    flag, wait, held, active, completed, failed, delayed, prioritized, waiting_children = told
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
        (State.ACTIVE, active),
        (State.COMPLETED, completed),
        (State.FAILED, failed),
        (State.DELAYED, delayed),
        (State.WAITING, waiting),
        (State.PAUSED, paused),
        (State.PRIORITIZED, prioritized),
        (State.WAITING_CHILDREN, waiting_children),
    ):
        if isinstance(count, Exception):
            unreadable.append((state, str(count)))
        else:
            counts[state] = count
    return counts


def _less_marker(size: Any, marked: int) -> Any:
    """The marker that lists could end in before BullMQ 5.0 is no job."""
    return max(size - 1, 0) if marked and isinstance(size, int) else size


def _reading(queue: Queue, counted: Counted, heads: Heads, version: Any) -> QueueReading:
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
        # Milliseconds are whole: what a score holds behind them is a counter.
        milliseconds = read // (unit // 1000)
        if abs(milliseconds) <= LATEST:
            return milliseconds / 1000
        unreadable.append((what, f"{text(value)[:40]!r} is no time"))
        return None

    def scheduler_runs() -> Iterator[tuple[str, float]]:
        # By the name as it is shown: two samples with the same labels would be one too many.
        named = zip(heads.runs[::2], heads.runs[1::2], strict=True)
        times = {text(name): seconds("scheduler", at) for name, at in named}
        return ((name, at) for name, at in times.items() if at is not None)

    paused = readable("paused", counted.flag)
    version = readable("version", version)
    sizes = (
        _less_marker(counted.wait, heads.wait_marked),
        _less_marker(counted.held, heads.held_marked),
        *counted[3 : 1 + len(SIZES)],
    )
    return QueueReading(
        queue=queue,
        counts=counts_of((counted.flag, *sizes), unreadable),
        paused=None if paused is None else bool(paused),
        version=None if version is None else text(version),
        oldest_waiting=seconds("oldest waiting", heads.oldest_waiting),
        oldest_active=seconds("oldest active", heads.oldest_active),
        oldest_active_locked=(
            None if heads.oldest_active_locked is None else bool(heads.oldest_active_locked)
        ),
        next_delayed=seconds("next delayed", heads.next_delayed, 1000 * DELAYED_SCORE_UNIT),
        schedulers=readable("schedulers", counted.schedulers),
        scheduler_runs=tuple(scheduler_runs()),
        heartbeat=seconds("heartbeat", heads.heartbeat),
        unreadable=tuple(unreadable),
    )
