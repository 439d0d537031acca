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
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from exporter.concurrency.batches import batched
from exporter.concurrency.request_priority import RequestPriority
from exporter.queues.queue import Queue, State
from exporter.queues.snapshot import LATE_AFTER_MS, QueueReading
from exporter.queues.worker_clock import CompareClock
from exporter.stores.bullmq import bull_queues, repeatables
from exporter.stores.bullmq.bull_queues import BullQueues
from exporter.stores.bullmq.keys import heartbeat_key
from exporter.stores.bullmq.limits import Meta, Window
from exporter.stores.bullmq.sample import (
    NOTHING,
    Counted,
    Edges,
    Sample,
    exposed_schedulers,
    is_nonzero,
    reading_of,
)
from exporter.stores.bullmq.scripts import load_script
from exporter.stores.bullmq.waiting import NO_PRIORITY_CHECK, WaitingJobs
from exporter.stores.redis.client import RedisReader, RedisRefused, packed

EDGES = load_script("edges.lua")

# Queues whose counts and edges are read before the next ones.
POLL_BATCH_SIZE = 1000

# Queues whose counts are requested at once: some 120 kB of commands.
COUNT_BATCH_SIZE = 200

# Queues whose readings are built before requests are served: 1 to 2 ms.
READ_BATCH_SIZE = 100

# A script blocks Redis until it ends. Measured on Redis 7.0 with jobs in every state of every
# queue: 25 queues block it for 1.3 ms (p99 1.5).
EDGE_BATCH_SIZE = 25

# In how many of these queues each of up to 20 priorities is checked.
PRIORITY_CHECKS_PER_BATCH = 4

# Heartbeats that one command checks.
HEARTBEAT_BATCH_SIZE = 25

# Seconds until a queue's version and configured limits are read again, and whether a queue with
# jobs still has its `meta`; an upgrade or a new limit is exposed within this time.
VERSION_TTL_SECONDS = 60.0

SIZES = (
    *((b"LLEN", name) for name in (b"wait", b"paused", b"active")),
    *(
        (b"ZCARD", name)
        for name in (b"completed", b"failed", b"delayed", b"prioritized", b"waiting-children")
    ),
)
# The commands that ask whether a queue is paused, and whether it exists. All versions of Bull have
# `meta-paused`; only those from 3.22 on write BullMQ's flag as well.
_FLAG = (b"HEXISTS", b"meta", b"paused")
_MARK = (b"EXISTS", b"meta")
_FLAG_OF_BULL = (b"EXISTS", b"meta-paused")
_MARK_OF_BULL = (b"EXISTS", b"id")
# What is asked of each queue after its flag; and of one that was idle, this and whether any of the
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

    probes: str  # one character each, see edges.lua
    starving: Sequence[Any]  # the job of `prioritized` that waits longest
    exposed: Sequence[bytes]  # schedulers that stay exposed in preference to others


class _QueueState:
    """What is remembered of a queue: what to ask, and the replies of the last poll."""

    __slots__ = (
        *("queue", "is_bull", "heartbeat_key", "was_idle", "asked", "recheck_commands", "flag"),
        *("answers", "counted", "is_ambiguous", "probes", "has_heartbeat", "edges"),
        *("exists", "exists_due", "meta", "meta_due", "sample", "reading"),
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
        self.probes = ""  # what to read next, by the counts
        self.has_heartbeat = False  # of this queue or of another one of its batch
        self.edges = NOTHING
        # Bull has no version and no limits in a `meta` of its own.
        self.meta = Meta(bull_queues.VERSION) if is_bull else Meta()
        self.meta_due = math.inf if is_bull else 0.0
        self.sample: Sample | None = None  # what the reading was made from
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
            # It is not expected to happen a second time at the same moment.
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

        Redis never has two of them at once, or it would be blocked for both.
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
            # A copy, because another poll may find meanwhile that a queue is no longer idle.
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
        """Note the counts; False if all of them have to be requested first.

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
        """What to read in addition to `meta`: one character each, see edges.lua."""
        ready = row.flag == 0 and (is_nonzero(row.wait) or is_nonzero(row.prioritized))
        return "".join(
            probe
            for probe, wanted in (
                ("w", is_nonzero(row.wait)),  # whether it ends in a marker
                ("h", is_nonzero(row.held)),  # the same of `paused`
                ("o", ready),  # since when the oldest waits
                ("p", ready and is_nonzero(row.prioritized)),  # and "m" or "z": see _wanted
                ("l", ready and row.active == 0),  # whether a rate limit is reached
                ("a", is_nonzero(row.active)),
                ("d", is_nonzero(row.delayed)),
                ("c", is_nonzero(row.waiting_children)),  # since when a parent waits
                ("s", self._max_schedulers and is_nonzero(row.schedulers)),
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
        """Omit overdue schedulers of Bull that have run for the last time; a script cannot compute
        the ids of their jobs, so this is a second step.
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
            exposed = exposed_schedulers(each.counted, each.edges)
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
    sample = Sample(state.known_counts, state.edges, state.meta)
    # Most queues have not changed.
    if state.reading is None or state.sample != sample:
        state.sample, state.reading = sample, reading_of(state.queue, sample)
    return state.reading


def _raise_if_refused(readings: Iterable[QueueReading]) -> None:
    """A missing right omits the values that need it; if no queue can be read, the poll fails."""
    refused = [
        why
        for reading in readings
        if reading.unreadable
        for what, why in reading.unreadable
        if isinstance(what, State) and "WRONGTYPE" not in why
    ]
    if refused and not any(reading.counts for reading in readings):
        raise RedisRefused(f"Redis does not let us read: {refused[0]}")
