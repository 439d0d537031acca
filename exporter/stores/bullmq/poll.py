"""One poll: counts, ages, schedulers and heartbeats of all queues.

Counts are read by plain commands, packed once for each queue and sent many at a time: a command
costs Redis 7.0 0.8 µs this way and 1.8 µs in a script, and other clients are served between them.
The edges of lists and sets (the oldest job, the next one due) are read by a script, because one
reply decides what to ask next.

Most queues are idle at any moment: they hold only finished jobs. No script is run for them, and for
those that were idle at the last poll one command asks whether they still are, since Redis keeps no
empty lists. That is four commands for such a queue instead of ten.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from exporter.concurrency.batches import batched
from exporter.concurrency.request_priority import RequestPriority
from exporter.queues.queue import Queue, State
from exporter.queues.snapshot import LATE_AFTER_MS, QueueReading
from exporter.queues.text import MAX_LABEL_BYTES, MAX_SAFE_INTEGER, label_text, text
from exporter.queues.worker_clock import CompareClock
from exporter.stores.bullmq import bull_queues, repeatables
from exporter.stores.bullmq.bull_queues import BullQueues
from exporter.stores.bullmq.keys import heartbeat_key
from exporter.stores.bullmq.limits import Meta, Window, limits_of
from exporter.stores.bullmq.scripts import load_script
from exporter.stores.bullmq.waiting import NO_PRIORITY_CHECK, WaitingJobs
from exporter.stores.redis.client import RedisReader, RedisRefused, packed

EDGES = load_script("edges.lua")

# Queues that are read, counts and edges, before the next ones are.
POLL_BATCH_SIZE = 1000

# Queues whose counts are asked for at once: some 120 kB of commands.
COUNT_BATCH_SIZE = 200

# Queues whose readings are built before requests are served: 1 to 2 ms.
READ_BATCH_SIZE = 100

# A script holds Redis until it ends. Measured on Redis 7.0 with jobs in every state of every queue:
# 25 queues hold it 1.3 ms (p99 1.5).
EDGE_BATCH_SIZE = 25

# How many of these queues are checked in each of up to 20 priorities.
PRIORITY_CHECKS_PER_BATCH = 4

# Heartbeats whose existence one command asks for.
HEARTBEAT_BATCH_SIZE = 25

# Seconds until a queue's version and configured limits are read again, and whether a queue with
# jobs still has its `meta`; an upgrade or a new limit is exposed within this time.
VERSION_TTL_SECONDS = 60.0

# A delayed job's score is its due time in ms, times this, plus a counter (BullMQ: addDelayedJob).
DELAYED_SCORE_UNIT = 4096

SIZES = (
    *((b"LLEN", name) for name in (b"wait", b"paused", b"active")),
    *(
        (b"ZCARD", name)
        for name in (b"completed", b"failed", b"delayed", b"prioritized", b"waiting-children")
    ),
)
# Whether a queue is paused, and what exists while it does. All versions of Bull have `meta-paused`,
# only those from 3.22 on write BullMQ's flag as well.
_FLAG = (b"HEXISTS", b"meta", b"paused")
_MARK = (b"EXISTS", b"meta")
_FLAG_OF_BULL = (b"EXISTS", b"meta-paused")
_MARK_OF_BULL = (b"EXISTS", b"id")
# What is asked of each queue behind its flag; of one that was idle, this, and whether any of the
# other keys exists.
_COUNTED = (*SIZES, (b"ZCARD", b"repeat"))
_FINISHED = (b"completed", b"failed")
_COUNTED_WHEN_IDLE = tuple((b"ZCARD", name) for name in _FINISHED)
_ABSENT_WHEN_IDLE = tuple(name for _, name in _COUNTED if name not in _FINISHED)
_REPLIES = 1 + len(_COUNTED)
_IDLE_REPLIES = 1 + len(_COUNTED_WHEN_IDLE) + 1
# What is asked next of those whose counts are ambiguous: mark and flag. Pausing moves jobs from one
# list to another: if it came in between, they were counted twice or not at all.
_RECHECK_REPLIES = 2

Answers = TypeVar("Answers")


class _Wanted(NamedTuple):
    """What to read of a queue."""

    probes: str  # a character each, as edges.lua knows them
    starving: Sequence[Any]  # the job of `prioritized` that waits longest
    exposed: Sequence[bytes]  # schedulers, that stay exposed before others


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
    def is_idle(self) -> bool:
        """Whether there are only finished jobs; False if that is not known."""
        flag, wait, held, active, _, _, *others = self
        return flag == 0 and all(size == 0 for size in (wait, held, active, *others))

    @property
    def holds_jobs(self) -> bool:
        """Whether there are jobs or schedulers: then the queue exists, with `meta` or without."""
        return any(map(_is_nonzero, self[1:]))

    @property
    def is_ambiguous(self) -> bool:
        """Whether the queue may be gone, or have been paused or resumed while it was counted.

        Of a queue that is not paused and has no waiting jobs pausing moves none.
        """
        flag, wait, held, *rest = self
        return bool(flag != 0 or wait or held or not any(map(_is_nonzero, rest)))


class Edges(NamedTuple):
    """The edges of a queue as edges.lua returns them, errors among them."""

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


class _QueueState:
    """What is remembered of a queue: what to ask, and the replies of the last poll."""

    __slots__ = (
        *("queue", "is_bull", "heartbeat_key", "was_idle", "asked", "recheck_commands", "flag"),
        *("answers", "counted", "is_ambiguous", "probes", "has_heartbeat", "edges"),
        *("exists", "exists_due", "meta", "meta_due", "read", "reading"),
    )

    def __init__(self, queue: Queue, *, is_bull: bool = False) -> None:
        self.queue, self.is_bull = queue, is_bull
        self.heartbeat_key = heartbeat_key(queue)
        self.flag: tuple[bytes, ...] = _FLAG_OF_BULL if is_bull else _FLAG
        mark = _MARK_OF_BULL if is_bull else _MARK
        self.recheck_commands = self._packed((mark, self.flag))
        self.counted: Counted | None = None
        self.is_ambiguous = True
        self.exists = False
        self.exists_due = 0.0
        self.probes = ""  # what the counts make us read next
        self.has_heartbeat = False  # of this queue or of another one of its batch
        self.edges = NOTHING
        # Bull has no version and no limits in a `meta` of its own.
        self.meta = Meta(bull_queues.VERSION) if is_bull else Meta()
        self.meta_due = math.inf if is_bull else 0.0
        self.read: tuple[Counted, Edges, Meta] | None = None  # what the reading was made from
        self.reading: QueueReading | None = None
        self.ask(was_idle=False)

    def ask(self, *, was_idle: bool) -> None:
        """Choose what to ask from now on: all, or only whether it is still idle."""
        self.was_idle = was_idle
        self.answers: Sequence[Any] = ()
        if was_idle:
            keys = (self.queue.base + name for name in _ABSENT_WHEN_IDLE)
            self.asked = self._packed((self.flag, *_COUNTED_WHEN_IDLE)) + packed((b"EXISTS", *keys))
        else:
            self.asked = self._packed((self.flag, *_COUNTED))

    def _packed(self, asked: Iterable[Sequence[bytes]]) -> bytes:
        base = self.queue.base
        return b"".join(packed((command, base + name, *rest)) for command, name, *rest in asked)

    def probes_at(self, now: float) -> str:
        """The probes of this poll, a character each; '' if there are none.

        The rate limit is read if jobs wait and none is active, or once it was seen; otherwise only
        as often as `meta`, because it is less urgent in a queue with active jobs.
        """
        probes = self.probes + "b" if self.has_heartbeat else self.probes
        if self.is_bull:
            # Bull has no limit that holds jobs back in `wait`: those beyond it become delayed.
            return probes and probes + "B"
        if self.meta_due > now and self.edges.limiter is None:
            return probes
        limitable = "o" in probes or "d" in probes
        return probes + ("v" if self.meta_due <= now else "") + ("l" if limitable else "")

    @property
    def known_counts(self) -> Counted:
        assert self.counted is not None
        return self.counted


class Poller:
    """Reads queues, and remembers of each what need not be read or built again."""

    def __init__(
        self,
        redis: RedisReader,
        *,
        max_schedulers: int,
        request_priority: RequestPriority | None = None,
        waiting: WaitingJobs | None = None,
        compare_clock: CompareClock = lambda *_: None,
        bull_queues: BullQueues | None = None,
    ) -> None:
        self._redis = redis
        self._bull_queues = bull_queues or BullQueues()
        self._waiting = waiting or WaitingJobs()
        self._compare_clock = compare_clock
        self._request_priority = request_priority or RequestPriority()
        self._max_schedulers = max_schedulers
        self._states: dict[Queue, _QueueState] = {}

    async def poll(
        self, queues: Sequence[Queue], *, configured: frozenset[Queue]
    ) -> tuple[QueueReading, ...]:
        """A reading of each queue that exists or is configured. Raises RedisUnavailable."""
        if not queues:
            # A poll of no queues shows all the same whether Redis answers.
            await self._redis.command("PING")
        readings: list[QueueReading] = []
        for some in batched(queues, POLL_BATCH_SIZE):
            states = list(map(self._state_of, some))
            await self._count(states)
            # A second time in the same moment is not to be expected.
            await self._count(await self._recheck(states))
            # All of its keys are gone when the queue is (Queue.obliterate).
            there = [each for each in states if each.exists or each.queue in configured]
            await self._read_edges(there)
            await self._leave_out_ended([each for each in there if each.is_bull])
            for batch in batched(there, READ_BATCH_SIZE):
                await self._request_priority.yield_to_requests()
                readings.extend(map(_read, batch))
            self._states.update((each.queue, each) for each in there)
        if len(self._states) > len(readings):
            for queue in self._states.keys() - {reading.queue for reading in readings}:
                del self._states[queue]
                self._waiting.forget(queue)
        await self._request_priority.yield_to_requests()
        _raise_if_refused(readings)
        return tuple(readings)

    def _state_of(self, queue: Queue) -> _QueueState:
        state, is_bull = self._states.get(queue), queue in self._bull_queues
        if state is None or state.is_bull is not is_bull:
            return _QueueState(queue, is_bull=is_bull)
        return state

    def forget_all(self) -> None:
        """Forget all earlier replies: everything is asked for again."""
        for queue in self._states:
            self._waiting.forget(queue)
        self._states.clear()

    def exists(self, queue: Queue) -> bool:
        """Whether the queue was in Redis when a poll last checked that."""
        return queue in self._states and self._states[queue].exists

    async def _ask(
        self,
        batches: Iterable[list[_QueueState]],
        ask: Callable[[list[_QueueState]], Awaitable[Answers]],
        take: Callable[[list[_QueueState], Answers], None],
    ) -> None:
        """Ask of one batch after the other, and take its answers while Redis has the next one.

        Redis never has two of them at once, or it would be held for both.
        """
        before: tuple[list[_QueueState], Answers] | None = None
        for batch in batches:
            # Before it is sent: requests wait for Redis too.
            await self._request_priority.yield_to_requests()
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
            await self._request_priority.yield_to_requests()
            take(*before)

    async def _count(self, states: Sequence[_QueueState]) -> None:
        woken: list[_QueueState] = []

        async def ask(batch: list[_QueueState]) -> tuple[list[bool], list[Any]]:
            commands = [each.asked for each in batch]
            # As it is now: another poll may find meanwhile that one is idle no more.
            was_idle = [each.was_idle for each in batch]
            number = sum(_IDLE_REPLIES if each else _REPLIES for each in was_idle)
            # In a cluster they are elsewhere.
            if self._redis.slot is None:
                commands += [
                    packed((b"EXISTS", *(each.heartbeat_key for each in group)))
                    for group in batched(batch, HEARTBEAT_BATCH_SIZE)
                ]
                number += len(commands) - len(batch)
            return was_idle, await self._redis.packed(b"".join(commands), number)

        def take(batch: list[_QueueState], replies: tuple[list[bool], list[Any]]) -> None:
            at, (all_idle, answers) = 0, replies
            for each, was_idle in zip(batch, all_idle, strict=True):
                end = at + (_IDLE_REPLIES if was_idle else _REPLIES)
                counts, at = answers[at:end], end
                if counts != each.answers and not self._take_counts(
                    each, counts, was_idle=was_idle
                ):
                    woken.append(each)
            groups = batched(batch, HEARTBEAT_BATCH_SIZE)
            for group, number in zip(groups, answers[at:], strict=self._redis.slot is None):
                for each in group:
                    each.has_heartbeat = bool(number)

        await self._ask(batched(states, COUNT_BATCH_SIZE), ask, take)
        if woken:
            await self._count(woken)

    def _take_counts(self, state: _QueueState, replies: Sequence[Any], *, was_idle: bool) -> bool:
        """Note the counts; False if all of them have to be asked for first.

        `was_idle`: whether only the commands for an idle queue were sent.
        """
        if was_idle:
            flag, completed, failed, others = replies
            if flag != 0 or others != 0:
                state.ask(was_idle=False)
                return False
            all_counts: Sequence[Any] = (flag, 0, 0, 0, completed, failed, 0, 0, 0, 0)
        else:
            all_counts = replies
        state.counted = counted = Counted(*all_counts)
        state.probes, state.is_ambiguous = self._probes_for(counted), counted.is_ambiguous
        if counted.is_idle and not was_idle:
            state.ask(was_idle=True)
        else:
            state.answers = replies
        return True

    async def _recheck(self, states: Sequence[_QueueState]) -> list[_QueueState]:
        """Ask which exist; return those that were paused or resumed while they were counted."""
        now = time.monotonic()
        pause_changed: list[_QueueState] = []
        size = _RECHECK_REPLIES

        async def ask(batch: list[_QueueState]) -> list[Any]:
            commands = b"".join([each.recheck_commands for each in batch])
            return await self._redis.packed(commands, size * len(batch))

        def take(batch: list[_QueueState], replies: list[Any]) -> None:
            for each, exists, flag in zip(batch, replies[::size], replies[1::size], strict=True):
                each.exists = bool(exists) or each.known_counts.holds_jobs
                each.exists_due = now + VERSION_TTL_SECONDS
                if not isinstance(flag, Exception) and flag != each.known_counts.flag:
                    each.answers = ()
                    pause_changed.append(each)

        due = [each for each in states if each.is_ambiguous or each.exists_due <= now]
        await self._ask(batched(due, COUNT_BATCH_SIZE), ask, take)
        return pause_changed

    def _probes_for(self, row: Counted) -> str:
        """What to read in addition to `meta`: a character each, as edges.lua knows them."""
        ready = row.flag == 0 and (_is_nonzero(row.wait) or _is_nonzero(row.prioritized))
        return "".join(
            probe
            for probe, wanted in (
                ("w", _is_nonzero(row.wait)),  # whether it ends in a marker
                ("h", _is_nonzero(row.held)),  # the same of `paused`
                ("o", ready),  # since when the oldest waits
                ("p", ready and _is_nonzero(row.prioritized)),  # and "m" or "z": see _wanted
                ("l", ready and row.active == 0),  # whether a rate limit is reached
                ("a", _is_nonzero(row.active)),
                ("d", _is_nonzero(row.delayed)),
                ("c", _is_nonzero(row.waiting_children)),  # since when a parent waits
                ("s", self._max_schedulers and _is_nonzero(row.schedulers)),
            )
            if wanted
        )

    async def _read_edges(self, states: Sequence[_QueueState]) -> None:
        now = time.monotonic()
        asked = []
        for each in states:
            if each.probes or each.has_heartbeat or each.meta_due <= now:
                asked.append(each)
            else:
                each.edges = NOTHING

        async def ask(batch: list[_QueueState]) -> tuple[float, list[_Wanted], Any]:
            at = time.time()
            wanted = self._wanted(batch, now)
            arguments: list[bytes | str | int] = [self._max_schedulers, int(1000 * at)]
            for each, (probes, starving, exposed) in zip(batch, wanted, strict=True):
                arguments.append(probes)
                if each.has_heartbeat:
                    arguments.append(each.heartbeat_key)
                if "k" in probes:
                    arguments += (len(exposed), *exposed)
                if starving:
                    job_id, by_hash = starving
                    arguments += (job_id, b"" if by_hash is None else by_hash)
            keys = [each.queue.base for each in batch]
            return at, wanted, await self._redis.run(EDGES, keys, arguments)

        def take(batch: list[_QueueState], answer: tuple[float, list[_Wanted], Any]) -> None:
            at, wanted, rows = answer
            for each, (probes, starving, _), row in zip(batch, wanted, rows, strict=True):
                meta, waiting, prioritized, limiter, *others, active_id = row
                if "m" in probes:
                    self._waiting.note_priority_check(each.queue, prioritized, now)
                elif prioritized != starving:
                    self._waiting.forget(each.queue)  # it has moved
                each.edges = Edges(
                    self._waiting.oldest(each.queue, waiting + prioritized),
                    Window.of(limiter, at, each.edges.limiter),
                    *others,
                )
                started = each.edges.oldest_active
                if active_id and isinstance(started, bytes):
                    self._compare_clock(each.queue, State.ACTIVE, active_id, started)
                if meta is not None:
                    each.meta = Meta.of(meta)
                    failed = isinstance(meta, Exception)
                    each.meta_due = now if failed else now + VERSION_TTL_SECONDS

        await self._ask(batched(asked, EDGE_BATCH_SIZE), ask, take)

    async def _leave_out_ended(self, states: Iterable[_QueueState]) -> None:
        """Of schedulers of Bull that are overdue, those that have run for the last time: a script
        cannot make the ids of their jobs.
        """
        now = 1000 * time.time() - LATE_AFTER_MS
        overdue = [
            (each.queue, name, at)
            for each in states
            for name, at in each.edges.next_runs
            if float(at) < now
        ]
        if not overdue:
            return
        ended = await repeatables.find_ended(self._redis, overdue)
        for each in states:
            kept = [run for run in each.edges.next_runs if (each.queue, run[0]) not in ended]
            each.edges = each.edges._replace(runs=[*chain.from_iterable(kept)])

    def _wanted(self, batch: Iterable[_QueueState], now: float) -> list[_Wanted]:
        """What to read of each of these queues; a few of them are checked in each priority."""
        wanted, checks = [], 0
        for each in batch:
            probes, starving = each.probes_at(now), NO_PRIORITY_CHECK.starving
            exposed = _exposed_schedulers(each.counted, each.edges)
            if exposed and len(exposed) == self._max_schedulers:
                probes += "k"  # others are exposed only in place of one of these
            if "p" in probes:
                check = self._waiting.last_check(each.queue)
                if check.due <= now and checks < PRIORITY_CHECKS_PER_BATCH:
                    checks += 1
                    probes += "m"
                elif check.starving:
                    probes += "z"
                    starving = check.starving
            wanted.append(_Wanted(probes, starving, exposed))
        return wanted


def _read(state: _QueueState) -> QueueReading:
    parts = (state.known_counts, state.edges, state.meta)
    # Most queues have not changed.
    if state.reading is None or state.read != parts:
        state.read = parts
        state.reading = _reading(state.queue, *parts)
    return state.reading


def _is_nonzero(size: Any) -> bool:
    return isinstance(size, int) and size > 0


def _exposed_schedulers(counted: Counted | None, edges: Edges) -> tuple[bytes, ...]:
    """The schedulers that are exposed of a queue that has more; none if a name may be shortened,
    since that scheduler would not be found by it.
    """
    runs = edges.runs
    number: Any = counted.schedulers if counted is not None else None
    if not isinstance(runs, list) or not _is_nonzero(number) or len(runs) >= 2 * number:
        return ()
    names = tuple(runs[::2])
    return names if max(map(len, names), default=0) < MAX_LABEL_BYTES else ()


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
    """A whole number, or why there is none. Raises ValueError: no server answers anything else."""
    if isinstance(size, Exception) or (type(size) is int and size >= 0):
        return size
    raise ValueError(f"{str(size)[:40]!r} is no count")


def _less_marker(size: Any, marked: int) -> Any:
    """The marker that lists could end in before BullMQ 5.0 is no job."""
    return max(size - 1, 0) if marked and isinstance(size, int) else size


def _reading(queue: Queue, counted: Counted, edges: Edges, meta: Meta) -> QueueReading:
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
        some_schedulers=_exposed_schedulers(counted, edges),
        heartbeat=seconds("heartbeat", edges.heartbeat),
        limits=limits_of(meta, edges.limiter, number),
        oldest_waiting_children=seconds(
            "oldest waiting for children", edges.oldest_waiting_children
        ),
        unreadable=tuple(unreadable),
    )
