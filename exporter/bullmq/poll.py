"""One poll: counts, ages, schedulers and heartbeats of all queues.

Counts are read by plain commands, packed once for each queue and sent many at a time: a command so
costs Redis 7.0 0.8 µs, in a script 1.8 µs, and others are served between them. What stands at the
ends of lists is read by a script, since one has to be known to ask for the next.

Most queues rest at any moment: they hold nothing but finished jobs. No script is run for them, and
of those that rested at the last poll one command asks whether they still do: Redis keeps no empty
lists. That is four commands for such a queue in place of ten.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from exporter.bullmq.batches import batched
from exporter.bullmq.connection import RedisReader, RedisRefused, Script, packed
from exporter.bullmq.keys import MAX_SAFE_INTEGER, Queue, State, label_text, text
from exporter.bullmq.limits import Meta, Window, limits_of
from exporter.bullmq.snapshot import QueueReading
from exporter.bullmq.turns import Turns
from exporter.bullmq.waiting import NO_LOOK, WaitingJobs
from exporter.bullmq.worker_clock import CompareClock

HEADS = Script("heads.lua")

# Queues that are read from their counts to what stands at the ends of their lists, and then others.
POLLED_AT_ONCE = 1000

# Queues whose counts are asked for at once: some 120 kB of commands.
COUNTED_AT_ONCE = 200

# Queues whose readings are made before others have their turn: 1 to 2 ms.
READ_AT_ONCE = 100

# A script holds Redis until it ends. Measured on Redis 7.0 with jobs in every state of every queue:
# 25 queues hold it 1.3 ms (p99 1.5).
HEADS_AT_ONCE = 25

# How many of these queues are checked in each of up to 20 priorities.
LOOKS_AT_ONCE = 4

# Heartbeats whose existence one command asks for.
HEARTBEATS_AT_ONCE = 25

# Seconds until a queue's version and configured limits are read again, and whether a queue with
# jobs still has its `meta`; an upgrade or a new limit is exposed within this time.
VERSION_KNOWN = 60.0

# A delayed job's score is its due time in ms, times this, plus a counter (BullMQ: addDelayedJob).
DELAYED_SCORE_UNIT = 4096

# The order of what counts_of() takes: the flag, then these.
SIZES = (
    *((b"LLEN", name) for name in (b"wait", b"paused", b"active")),
    *(
        (b"ZCARD", name)
        for name in (b"completed", b"failed", b"delayed", b"prioritized", b"waiting-children")
    ),
)
_FLAG = (b"HEXISTS", b"meta", b"paused")
# What is asked of each queue; of one that rested, so much and whether any of the other keys exists.
_ASKED = (_FLAG, *SIZES, (b"ZCARD", b"repeat"))
_FINISHED = (b"completed", b"failed")
_ASKED_AT_REST = (_FLAG, *((b"ZCARD", name) for name in _FINISHED))
_ABSENT_AT_REST = tuple(name for _, name in _ASKED[1:] if name not in _FINISHED)
_AT_REST = len(_ASKED_AT_REST) + 1  # answers
# What is asked then of those that are in doubt (_Memory.doubtful). Pausing moves jobs from one list
# to another: if it came in between, they were counted twice or not at all.
_ASKED_IN_DOUBT = ((b"EXISTS", b"meta"), _FLAG)

Answers = TypeVar("Answers")
# What to read of a queue, by the letters of heads.lua, and the job of `prioritized` that starves.
_Wanted = tuple[str, Sequence[Any]]


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

    @property
    def rests(self) -> bool:
        """Whether there are but finished jobs; False where that is not known."""
        flag, wait, held, active, _, _, *others = self
        return flag == 0 and all(size == 0 for size in (wait, held, active, *others))

    @property
    def holds_jobs(self) -> bool:
        """Whether there are jobs or schedulers: then the queue exists, with `meta` or without."""
        return any(map(_some, self[1:]))

    @property
    def doubtful(self) -> bool:
        """Whether the queue may be gone, or have been paused or resumed while it was counted.

        Of a queue that is not paused and has no waiting jobs pausing moves none.
        """
        flag, wait, held, *rest = self
        return bool(flag != 0 or wait or held or not any(map(_some, rest)))


class Heads(NamedTuple):
    """What is known of a queue's ends by heads.lua, errors among it."""

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


NOTHING = Heads()


class _Memory:
    """What is remembered of a queue: what to ask, and what the last poll told."""

    __slots__ = (
        *("queue", "heartbeat_key", "rested", "asked", "asked_in_doubt"),
        *("answers", "counted", "doubtful", "letters", "beats", "heads"),
        *("exists", "exists_due", "meta", "meta_due", "read", "reading"),
    )

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.heartbeat_key = queue.heartbeat_key
        self.asked_in_doubt = self._packed(_ASKED_IN_DOUBT)
        self.counted: Counted | None = None
        self.doubtful = True
        self.exists = False
        self.exists_due = 0.0
        self.letters = ""  # what they make us look at
        self.beats = False  # whether the heartbeat is there, or that of one beside it
        self.heads = NOTHING
        self.meta = Meta()
        self.meta_due = 0.0
        self.read: tuple[Counted, Heads, Meta] | None = None  # what the reading was made from
        self.reading: QueueReading | None = None
        self.ask(rested=False)

    def ask(self, *, rested: bool) -> None:
        """What to ask from now on: all, or what tells whether it still rests."""
        self.rested = rested
        self.answers: Sequence[Any] = ()
        if rested:
            keys = (self.queue.base + name for name in _ABSENT_AT_REST)
            self.asked = self._packed(_ASKED_AT_REST) + packed((b"EXISTS", *keys))
        else:
            self.asked = self._packed(_ASKED)

    def _packed(self, asked: Iterable[Sequence[bytes]]) -> bytes:
        base = self.queue.base
        return b"".join(packed((command, base + name, *rest)) for command, name, *rest in asked)

    def letters_at(self, now: float) -> str:
        """What to look at in this poll, by the letters of heads.lua; '' where nothing is.

        The rate limit is read if jobs wait and none is active, or once it was seen; otherwise only
        as often as `meta`, because it is less urgent in a queue with active jobs.
        """
        letters = self.letters + "b" if self.beats else self.letters
        if self.meta_due > now and self.heads.limiter is None:
            return letters
        limitable = "o" in letters or "d" in letters
        return letters + ("v" if self.meta_due <= now else "") + ("l" if limitable else "")

    @property
    def told(self) -> Counted:
        assert self.counted is not None
        return self.counted


class Poller:
    """Reads queues, and remembers of each what would be the same work again."""

    def __init__(
        self,
        redis: RedisReader,
        *,
        max_schedulers: int,
        turns: Turns | None = None,
        waiting: WaitingJobs | None = None,
        compare_clock: CompareClock = lambda *_: None,
    ) -> None:
        self._redis = redis
        self._waiting = waiting or WaitingJobs()
        self._compare_clock = compare_clock
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
        readings: list[QueueReading] = []
        for some in batched(queues, POLLED_AT_ONCE):
            memories = [self._memory.get(queue) or _Memory(queue) for queue in some]
            await self._count(memories)
            # A second time in the same moment is not to be expected.
            await self._count(await self._settle_doubts(memories))
            # All of its keys are gone when the queue is (Queue.obliterate).
            there = [each for each in memories if each.exists or each.queue in configured]
            await self._look_at_heads(there)
            for batch in batched(there, READ_AT_ONCE):
                await self._turns.give_way()
                readings.extend(map(_read, batch))
            self._memory.update((each.queue, each) for each in there)
        if len(self._memory) > len(readings):
            for queue in self._memory.keys() - {reading.queue for reading in readings}:
                del self._memory[queue]
                self._waiting.forget(queue)
        await self._turns.give_way()
        _raise_if_refused(readings)
        return tuple(readings)

    def forget_all(self) -> None:
        """Ask for everything again, and take nothing for what it was before."""
        for queue in self._memory:
            self._waiting.forget(queue)
        self._memory.clear()

    def exists(self, queue: Queue) -> bool:
        """Whether the queue was in Redis when a poll last checked that."""
        return queue in self._memory and self._memory[queue].exists

    async def _ask(
        self,
        batches: Iterable[list[_Memory]],
        ask: Callable[[list[_Memory]], Awaitable[Answers]],
        take: Callable[[list[_Memory], Answers], None],
    ) -> None:
        """Ask of one batch after the other, and take its answers while Redis has the next one.

        Redis never has two of them at once, or it would be held for both.
        """
        before: tuple[list[_Memory], Answers] | None = None
        for batch in batches:
            # Before it is sent: whoever waits for an answer waits for Redis too.
            await self._turns.give_way()
            asking = asyncio.ensure_future(ask(batch))
            try:
                await asyncio.sleep(0)  # now it is sent
                if before is not None:
                    take(*before)
                before = (batch, await asking)
            except BaseException:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
                raise
        if before is not None:
            await self._turns.give_way()
            take(*before)

    async def _count(self, memories: Sequence[_Memory]) -> None:
        stirred: list[_Memory] = []

        async def ask(batch: list[_Memory]) -> tuple[list[bool], list[Any]]:
            commands = [each.asked for each in batch]
            # As it is now: another poll may find meanwhile that one rests no more.
            rested = [each.rested for each in batch]
            number = sum(_AT_REST if each else len(_ASKED) for each in rested)
            # In a cluster they are elsewhere.
            if self._redis.slot is None:
                commands += [
                    packed((b"EXISTS", *(each.heartbeat_key for each in group)))
                    for group in batched(batch, HEARTBEATS_AT_ONCE)
                ]
                number += len(commands) - len(batch)
            return rested, await self._redis.packed(b"".join(commands), number)

        def take(batch: list[_Memory], asked: tuple[list[bool], list[Any]]) -> None:
            at, (all_rested, answers) = 0, asked
            for each, rested in zip(batch, all_rested, strict=True):
                end = at + (_AT_REST if rested else len(_ASKED))
                told, at = answers[at:end], end
                if told != each.answers and not self._take_counts(each, told, rested=rested):
                    stirred.append(each)
            groups = batched(batch, HEARTBEATS_AT_ONCE)
            for group, number in zip(groups, answers[at:], strict=self._redis.slot is None):
                for each in group:
                    each.beats = bool(number)

        await self._ask(batched(memories, COUNTED_AT_ONCE), ask, take)
        if stirred:
            await self._count(stirred)

    def _take_counts(self, memory: _Memory, told: Sequence[Any], *, rested: bool) -> bool:
        """Take note of what has changed; False where all is to be asked for first.

        `rested`: whether that was asked for which one that rested is asked for.
        """
        if rested:
            flag, completed, failed, others = told
            if flag != 0 or others != 0:
                memory.ask(rested=False)
                return False
            told_all: Sequence[Any] = (flag, 0, 0, 0, completed, failed, 0, 0, 0, 0)
        else:
            told_all = told
        memory.counted = counted = Counted(*told_all)
        memory.letters, memory.doubtful = self._letters(counted), counted.doubtful
        if counted.rests and not rested:
            memory.ask(rested=True)
        else:
            memory.answers = told
        return True

    async def _settle_doubts(self, memories: Sequence[_Memory]) -> list[_Memory]:
        """Ask which are there; those that were paused or resumed while they were counted."""
        now = time.monotonic()
        turned: list[_Memory] = []
        size = len(_ASKED_IN_DOUBT)

        async def ask(batch: list[_Memory]) -> list[Any]:
            commands = b"".join([each.asked_in_doubt for each in batch])
            return await self._redis.packed(commands, size * len(batch))

        def take(batch: list[_Memory], told: list[Any]) -> None:
            for each, exists, flag in zip(batch, told[::size], told[1::size], strict=True):
                each.exists = bool(exists) or each.told.holds_jobs
                each.exists_due = now + VERSION_KNOWN
                if not isinstance(flag, Exception) and flag != each.told.flag:
                    each.answers = ()
                    turned.append(each)

        doubtful = [each for each in memories if each.doubtful or each.exists_due <= now]
        await self._ask(batched(doubtful, COUNTED_AT_ONCE), ask, take)
        return turned

    def _letters(self, row: Counted) -> str:
        """What to read in addition to `meta`: heads.lua knows these letters."""
        ready = row.flag == 0 and (_some(row.wait) or _some(row.prioritized))
        return "".join(
            letter
            for letter, wanted in (
                ("w", _some(row.wait)),  # whether it ends in a marker
                ("h", _some(row.held)),  # the same of `paused`
                ("o", ready),  # since when the oldest waits
                ("p", ready and _some(row.prioritized)),  # and "m" or "z": see _wanted
                ("l", ready and row.active == 0),  # whether a rate limit is reached
                ("a", _some(row.active)),
                ("d", _some(row.delayed)),
                ("c", _some(row.waiting_children)),  # since when a parent waits
                ("s", self._max_schedulers and _some(row.schedulers)),
            )
            if wanted
        )

    async def _look_at_heads(self, memories: Sequence[_Memory]) -> None:
        now = time.monotonic()
        asked = []
        for each in memories:
            if each.letters or each.beats or each.meta_due <= now:
                asked.append(each)
            else:
                each.heads = NOTHING

        async def ask(batch: list[_Memory]) -> tuple[float, list[_Wanted], Any]:
            at = time.time()
            wanted = self._wanted(batch, now)
            arguments: list[bytes | str | int] = [self._max_schedulers, int(1000 * at)]
            for each, (letters, starving) in zip(batch, wanted, strict=True):
                arguments.append(letters)
                if each.beats:
                    arguments.append(each.heartbeat_key)
                if starving:
                    job_id, by_hash = starving
                    arguments += (job_id, b"" if by_hash is None else by_hash)
            keys = [each.queue.base for each in batch]
            return at, wanted, await self._redis.run(HEADS, keys, arguments)

        def take(batch: list[_Memory], answer: tuple[float, list[_Wanted], Any]) -> None:
            at, wanted, rows = answer
            for each, (letters, starving), row in zip(batch, wanted, rows, strict=True):
                meta, waiting, prioritized, limiter, *others, active_id = row
                if "m" in letters:
                    self._waiting.note_look(each.queue, prioritized, now)
                elif prioritized != starving:
                    self._waiting.forget(each.queue)  # it has moved
                each.heads = Heads(
                    self._waiting.oldest(each.queue, waiting + prioritized),
                    Window.of(limiter, at, each.heads.limiter),
                    *others,
                )
                started = each.heads.oldest_active
                if active_id and isinstance(started, bytes):
                    self._compare_clock(each.queue, State.ACTIVE, active_id, started)
                if meta is not None:
                    each.meta = Meta.of(meta)
                    failed = isinstance(meta, Exception)
                    each.meta_due = now if failed else now + VERSION_KNOWN

        await self._ask(batched(asked, HEADS_AT_ONCE), ask, take)

    def _wanted(self, batch: Iterable[_Memory], now: float) -> list[_Wanted]:
        """What to read of each of these queues; a few of them are checked in each priority."""
        wanted, looks = [], 0
        for each in batch:
            letters, starving = each.letters_at(now), NO_LOOK.starving
            if "p" in letters:
                look = self._waiting.look(each.queue)
                if look.due <= now and looks < LOOKS_AT_ONCE:
                    looks += 1
                    letters += "m"
                elif look.starving:
                    letters += "z"
                    starving = look.starving
            wanted.append((letters, starving))
        return wanted


def _read(memory: _Memory) -> QueueReading:
    told = (memory.told, memory.heads, memory.meta)
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
    for size in told:
        _count(size)
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


def _count(size: Any) -> Any:
    """A whole number, or why there is none. Raises ValueError: no server answers anything else."""
    if isinstance(size, Exception) or (type(size) is int and size >= 0):
        return size
    raise ValueError(f"{str(size)[:40]!r} is no count")


def _less_marker(size: Any, marked: int) -> Any:
    """The marker that lists could end in before BullMQ 5.0 is no job."""
    return max(size - 1, 0) if marked and isinstance(size, int) else size


def _reading(queue: Queue, counted: Counted, heads: Heads, meta: Meta) -> QueueReading:
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
        if abs(milliseconds) <= MAX_SAFE_INTEGER:
            return milliseconds / 1000
        unreadable.append((what, f"{read:g} is no time"))
        return None

    def scheduler_runs() -> Iterator[tuple[str, float]]:
        # By the name as it is shown: two samples with the same labels would be one too many.
        runs = heads.runs or ()
        named = zip(runs[::2], runs[1::2], strict=True)
        times = {label_text(name): seconds("scheduler", at) for name, at in named}
        return ((name, at) for name, at in times.items() if at is not None)

    paused = readable("paused", counted.flag)
    version = readable("version", meta.version)
    sizes = (
        _less_marker(counted.wait, heads.wait_marked),
        _less_marker(counted.held, heads.held_marked),
        *counted[3 : 1 + len(SIZES)],
    )
    return QueueReading(
        queue=queue,
        counts=counts_of((counted.flag, *sizes), unreadable),
        paused=None if paused is None else bool(paused),
        version=None if version is None else label_text(version),
        oldest_waiting=seconds("oldest waiting", heads.oldest_waiting),
        oldest_active=seconds("oldest active", heads.oldest_active),
        oldest_active_locked=(
            None if heads.oldest_active_locked is None else bool(heads.oldest_active_locked)
        ),
        next_delayed=seconds("next delayed", heads.next_delayed, 1000 * DELAYED_SCORE_UNIT),
        schedulers=readable("schedulers", _count(counted.schedulers)),
        scheduler_runs=tuple(scheduler_runs()),
        heartbeat=seconds("heartbeat", heads.heartbeat),
        limits=limits_of(meta, heads.limiter, number),
        oldest_waiting_children=seconds(
            "oldest waiting for children", heads.oldest_waiting_children
        ),
        unreadable=tuple(unreadable),
    )
