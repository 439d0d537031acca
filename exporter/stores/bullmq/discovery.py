"""Which queues there are: one scan of the keys, for all prefixes.

A queue of BullMQ exists while its `meta` does, which each Queue and Worker writes, or while one of
its keys holds jobs: somebody may have deleted `meta`, or Redis may have evicted it.

A queue of Bull 3 or 4 exists while its `id` does, the counter of its jobs: if finished jobs are
removed at once, an idle queue has no other key. BullMQ has such a counter too, and Bull writes
`paused` into a `meta` (3.22 and later: pause-5.lua). Only BullMQ has an event stream, and in `meta`
its version or the maximum length of that stream.

Two queues can have the same keys: `sales:cancel` of the prefix `bull`, as BullMQ 4 allows it, and
`cancel` of the prefix `bull:sales`. The longest prefix that is configured and fits is taken. The
remaining names with a colon are examined: BullMQ rejects them from 5.14 on, and later 5.x write
their version into `meta` (4.18 does too), so one with a version of 5 or later is the queue of a
longer prefix, which is not watched. The hash of a job with the id `…:meta` has a job's fields.
"""

from __future__ import annotations

import asyncio
import logging
import os.path
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Any

from exporter.concurrency.batches import batched
from exporter.concurrency.request_priority import RequestPriority
from exporter.queues.queue import MAX_BASE_BYTES, Queue
from exporter.queues.text import MAX_LABEL_BYTES, label_text
from exporter.settings import Watched, is_pattern, literal
from exporter.stores.base import Findings
from exporter.stores.bullmq.bull_queues import BullQueues
from exporter.stores.bullmq.keys import events_key, meta_key
from exporter.stores.bullmq.options import read_options
from exporter.stores.bullmq.poll import SIZES
from exporter.stores.redis.client import Command, RedisReader, escaped_glob, expected

log = logging.getLogger(__name__)

# About how many keys one SCAN call looks at: it blocks Redis 7.0 for 0.3 ms, at most for 1 ms.
SCAN_COUNT = 1000

# What the last part of a key says about the part before it: that it is a queue, has events, holds
# jobs, is a queue of Bull 3 or 4 (whose other keys have the same names as BullMQ's), or numbers its
# jobs.
_META, _EVENTS, _JOBS, _BULL, _ID = 1, 2, 4, 8, 16
_HOLDING: tuple[tuple[bytes, bytes], ...] = (*SIZES, (b"ZCARD", b"repeat"))
# The keys in which a queue of BullMQ is searched for jobs of Bull: only jobs that were started show
# surely whose they are.
_FINISHED = ((b"ZCARD", b"completed"), (b"ZCARD", b"failed"))
_MARKS = {
    b"meta": _META,
    b"events": _EVENTS,
    b"meta-paused": _BULL,
    b"id": _ID,
    **{name: _JOBS for _, name in _HOLDING},
}
# Globs cannot express alternatives. This one matches `meta`, `events`, `wait` and `id`, and one
# UUID in 130; on Redis 7.0 with 300,000 keys it takes as long as `*:meta` (0.37 s of CPU).
_USUAL = b"*:[mewi]*[astd]"
# This one matches all of _MARKS, and one UUID in 20: 0.41 s.
_ALL = b"*:[mewapcfdri]*[adestn]"

# How many names one search tracks in addition to those that it may find; more are ignored.
MAX_OTHER_NAMES = 100_000
# Maximum number of names that one search examines more closely, in total and at once.
MAX_CHECKED = 10_000
CHECK_BATCH_SIZE = 100
# How many names are classified before yielding to requests: 1 ms.
SORT_BATCH_SIZE = 1000

_META_FIELDS = (b"version", b"opts.maxLenEvents", b"paused", b"name", b"timestamp")

# What a queue of Bull may have besides its counter while it holds no job: while a worker runs it
# renews `stalled-check` every 30 s.
_BULL_KEYS = (b"stalled-check", b"meta-paused", b"priority", b"stalled", b"repeat")
# Maximum number of digits of a number.
_MAX_DIGITS = 20


@dataclass
class _Sorted:
    """The names of one scan, classified as far as possible by their keys."""

    found: set[Queue] = field(default_factory=set)
    excluded: int = 0
    unclear: list[tuple[Queue, int]] = field(default_factory=list)  # with their marks
    others: list[tuple[bytes, int]] = field(default_factory=list)  # of other prefixes
    other_prefixes: Counter[str] = field(default_factory=Counter)
    bull: set[Queue] = field(default_factory=set)


class Search:
    """Searches Redis for the queues that the settings ask for."""

    def __init__(
        self,
        redis: RedisReader,
        settings: Watched,
        *,
        limit: int,
        request_priority: RequestPriority,
        bull_queues: BullQueues | None = None,
    ) -> None:
        self._redis, self._settings, self._request_priority = redis, settings, request_priority
        self._bull_queues = bull_queues or BullQueues()
        self._max_names = limit + MAX_OTHER_NAMES
        self._plain = frozenset(prefix.encode() for prefix in settings.plain_prefixes)
        self._patterns = [
            re.compile(translate(prefix)) for prefix in settings.prefix if is_pattern(prefix)
        ]
        self._not_queues: set[bytes] = set()  # other keys with a colon in their names
        # The common beginning of all keys: Redis returns only matching keys, at the same cost.
        begins = [_literal_begin(prefix) for prefix in settings.prefix]
        begin = os.path.commonprefix(begins)  # noqa: RUF071 - character by character
        self._usual = escaped_glob(begin).encode() + _USUAL

    async def run(
        self, *, pace: float, known: Iterable[Queue] = (), everywhere: bool = False
    ) -> Findings:
        """Search once. Raises RedisUnavailable.

        `known` queues are returned as the same objects, which makes comparing them cheap.

        `pace` is how long to sleep after each SCAN call, as a multiple of the duration of the call:
        it limits the share of a large server's time that the scan takes. With `everywhere` all keys
        are searched, also for queues that are not watched.
        """
        if everywhere:
            self._not_queues.clear()
        marks, too_long = await self._scan(_ALL if everywhere else self._usual, pace)
        names = await self._sort(marks, {queue.base[:-1]: queue for queue in known})
        for batch in batched(names.unclear[:MAX_CHECKED], CHECK_BATCH_SIZE):
            await self._check_meta(names, [each for each in batch if each[1] & _META])
            await self._check_without_meta(names, [each for each in batch if not each[1] & _META])
        unwatched: set[Queue] = set()
        mixed: list[str] = []
        if everywhere:
            await self._check_others(names)
            mixed = await self._find_mixed(names, marks)
        if self._settings.bull:
            names.found |= names.bull
        else:
            unwatched = names.bull
        shown = await self._shown(names.found)
        self._bull_queues.note(shown, bull=names.bull.intersection(shown))
        return Findings(
            queues=shown,
            excluded=names.excluded,
            too_long=too_long,
            other_prefixes=dict(names.other_prefixes) if everywhere else None,
            bull=tuple(sorted(queue.name for queue in unwatched)) if everywhere else None,
            mixed=tuple(sorted(mixed)),
        )

    async def identify(self, queues: Sequence[Queue]) -> None:
        """Note which of these are Bull's, where queues are named and not searched for.

        A named queue of Bull is always watched. Raises RedisUnavailable.
        """
        names = _Sorted()
        for batch in batched(queues, CHECK_BATCH_SIZE):
            commands: list[Command] = []
            for queue in batch:
                commands.append((b"HMGET", meta_key(queue), *_META_FIELDS[:2]))
                commands.append((b"TYPE", events_key(queue)))
                commands.append((b"GETRANGE", queue.base + b"id", 0, _MAX_DIGITS))
            answers = expected(await self._redis.pipeline(commands), list, bytes)
            for at, queue in enumerate(batch):
                fields, kind, number = answers[3 * at : 3 * at + 3]
                written = isinstance(fields, list) and any(fields)
                if not written and kind != b"stream" and _is_number(number):
                    names.bull.add(queue)
        self._bull_queues.note(queues, bull=names.bull)

    async def _scan(self, pattern: bytes, pace: float) -> tuple[dict[bytes, int], int]:
        """The parts of keys before the last colon with the marks of their keys, and the number of
        names that are too long.
        """
        marks: dict[bytes, int] = {}
        too_long: set[int] = set()  # hashes
        cursor = 0
        while True:
            began = time.monotonic()
            answer, keys = await self._redis.command(
                "SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT
            )
            for key in keys:
                base, _, last = key.rpartition(b":")
                mark = _MARKS.get(last)
                if len(base) >= MAX_BASE_BYTES:
                    if mark == _META and len(too_long) < self._max_names:
                        too_long.add(hash(base))
                    continue
                # Any application may have many keys with such an ending.
                if mark == _ID and base not in marks and self._place(base) is None:
                    continue
                if mark is not None and (base in marks or len(marks) < self._max_names):
                    marks[base] = marks.get(base, 0) | mark
            cursor = int(answer)
            if cursor == 0:
                return marks, len(too_long)
            await asyncio.sleep(pace * (time.monotonic() - began))

    async def _sort(self, marks: Mapping[bytes, int], known: Mapping[bytes, Queue]) -> _Sorted:
        names = _Sorted()
        for batch in batched(marks.items(), SORT_BATCH_SIZE):
            await self._request_priority.yield_to_requests()
            for base, mark in batch:
                queue = known.get(base) or self._place(base)
                if queue is None:
                    names.others.append((base, mark))
                elif not self._settings.selects(queue.name):
                    excluded = mark & _META or (mark & _ID and b":" not in queue.raw_name)
                    names.excluded += bool(excluded)
                elif base in known and queue in self._bull_queues and mark & (_META | _ID) == _ID:
                    names.bull.add(queue)
                # A name that matches a pattern need not be a queue: `app:session:meta`.
                elif (
                    mark & _META
                    and mark & (_ID | _EVENTS) != _ID  # perhaps a queue of Bull
                    and (
                        base in known
                        or (b":" not in queue.raw_name and queue.prefix.encode() in self._plain)
                    )
                ):
                    names.found.add(queue)
                # A further key of a job or a metric: `…:42:failed`, `…:metrics:completed`.
                elif (
                    b":" not in queue.raw_name or mark & (_META | _EVENTS | _ID)
                ) and base not in self._not_queues:
                    names.unclear.append((queue, mark))
        return names

    def _place(self, base: bytes) -> Queue | None:
        """The queue of this name, by the longest matching prefix; None if no prefix matches."""
        end = base.rfind(b":")
        while end > 0:
            prefix, name = base[:end], base[end + 1 :]
            if name and (prefix in self._plain or self._fits_pattern(prefix)):
                return Queue.named(prefix.decode(), name)
            end = base.rfind(b":", 0, end)
        return None

    def _fits_pattern(self, prefix: bytes) -> bool:
        if not self._patterns or len(prefix) > MAX_LABEL_BYTES:
            return False
        try:
            name = prefix.decode()
        except UnicodeDecodeError:
            return False  # no setting can contain it
        return any(pattern.match(name) for pattern in self._patterns)

    async def _check_meta(self, names: _Sorted, unclear: Sequence[tuple[Queue, int]]) -> None:
        """Classify names with a `meta`: queues of BullMQ or of Bull, jobs, or, where they hold a
        colon, queues of longer prefixes.
        """
        answers = await self._redis.pipeline(
            [(b"HMGET", meta_key(queue), *_META_FIELDS) for queue, _ in unclear]
        )
        for (queue, mark), fields in zip(unclear, expected(answers, list), strict=True):
            base = queue.base[:-1]
            if not isinstance(fields, list):
                self._not_queues.add(base)  # not a hash
                continue
            version, max_events, paused, name, timestamp = fields
            if name is not None or timestamp is not None:
                self._not_queues.add(base)  # a job
            elif b":" in queue.raw_name and _refuses_colons(version):
                self._not_queues.add(base)
                names.others.append((base, mark))
            elif version or max_events or mark & _EVENTS:
                names.found.add(queue)
            elif mark & _ID:
                names.bull.add(queue)
            elif paused or mark & _JOBS:
                names.found.add(queue)

    async def _check_without_meta(
        self, names: _Sorted, unclear: Sequence[tuple[Queue, int]]
    ) -> None:
        """Classify names without `meta`: queues of BullMQ that hold jobs, and queues of Bull."""
        commands: list[Command] = []
        for queue, _ in unclear:
            commands += [(command, queue.base + name) for command, name in _HOLDING]
            commands.append((b"GETRANGE", queue.base + b"id", 0, _MAX_DIGITS))
            commands.append((b"EXISTS", *(queue.base + name for name in _BULL_KEYS)))
            commands.append((b"TYPE", events_key(queue)))
        answers = expected(await self._redis.pipeline(commands), int, bytes)
        each = len(_HOLDING) + 3
        eventless: list[tuple[Queue, bytes, bytes]] = []
        for at, (queue, mark) in enumerate(unclear):
            *sizes, number, others, kind = answers[each * at : each * (at + 1)]
            numbered = mark & _ID and _is_number(number)
            holding = [
                which
                for which, size in zip(_HOLDING, sizes, strict=True)
                if isinstance(size, int) and size > 0
            ]
            if kind == b"stream":
                if holding:
                    names.found.add(queue)
            elif not holding:
                # A name that matches a pattern need not be a queue: `app:user:id`.
                plain = queue.prefix.encode() in self._plain and b":" not in queue.raw_name
                if numbered and (plain or (isinstance(others, int) and others)):
                    names.bull.add(queue)
            elif b":" in queue.raw_name and not numbered:
                continue  # a job's keys, perhaps
            elif mark & _BULL:
                names.bull.add(queue)
            else:
                eventless.append((queue, *holding[0]))
        for queue, is_bull in await self._jobs_of_bull(eventless):
            (names.bull if is_bull else names.found).add(queue)

    async def _find_mixed(self, names: _Sorted, marks: Mapping[bytes, int]) -> list[str]:
        """The queues of BullMQ that contain jobs of Bull, because two applications use the same
        name.
        """
        mixed: set[str] = set()
        holding = [queue for queue in names.found if marks.get(queue.base[:-1], 0) & _JOBS]
        for batch in batched(holding[:MAX_CHECKED], CHECK_BATCH_SIZE):
            await self._request_priority.yield_to_requests()
            ends = [(queue, *end) for queue in batch for end in _FINISHED]
            mixed.update(queue.name for queue, is_bull in await self._jobs_of_bull(ends) if is_bull)
        return list(mixed)

    async def _jobs_of_bull(
        self, unclear: Sequence[tuple[Queue, bytes, bytes]]
    ) -> list[tuple[Queue, bool]]:
        """Whether the first job of a list or set of each queue is Bull's: it has Bull's defaults
        among its options, as have those of BullMQ's Python client, which count their starts (`ats`)
        and attempts (`atm`). Queues without such a job have no entry.
        """
        firsts = await self._redis.pipeline(
            [
                (b"LRANGE" if command == b"LLEN" else b"ZRANGE", queue.base + name, 0, 0)
                for queue, command, name in unclear
            ]
        )
        expected(firsts, list)
        keys = [
            queue.job_key(ids[0] if isinstance(ids, list) and ids else b"")
            for (queue, _, _), ids in zip(unclear, firsts, strict=True)
        ]
        options = await read_options(self._redis, keys)
        counts = await self._redis.pipeline(
            [(b"HEXISTS", key, field) for key in keys for field in (b"ats", b"atm")]
        )
        # lib/job.js of Bull 4.16.5, setDefaultOpts(); BullMQ keeps `timestamp` next to `opts`.
        defaults = [b'"%b":' % name for name in (b"attempts", b"delay", b"timestamp")]
        return [
            (queue, 1 not in own and all(default in given for default in defaults))
            for (queue, _, _), given, own in zip(unclear, options, batched(counts, 2), strict=True)
            # None: a list of another application, or a job that was just removed.
            if given is not None
        ]

    async def _check_others(self, names: _Sorted) -> None:
        """Count the queues of prefixes that are not configured.

        The ACL user may not be allowed to read them: `meta` and other keys of a queue suffice.
        """
        named = [
            (base, mark)
            for base, mark in names.others
            if mark & _META and all(base.rpartition(b":"))  # a prefix and a name
        ]
        alone = [base for base, mark in named if not mark & (_EVENTS | _JOBS)]
        queues = [base for base, mark in named if mark & (_EVENTS | _JOBS)]
        for batch in batched(alone[:MAX_CHECKED], CHECK_BATCH_SIZE):
            answers = await self._redis.pipeline(
                [(b"HMGET", base + b":meta", *_META_FIELDS[:2]) for base in batch]
            )
            queues += [
                base
                for base, fields in zip(batch, expected(answers, list), strict=True)
                if isinstance(fields, list) and any(fields)
            ]
        names.other_prefixes.update(label_text(base.rpartition(b":")[0]) for base in queues)

    async def _shown(self, found: set[Queue]) -> tuple[Queue, ...]:
        """The queues, sorted, with only one of several that have the same labels."""
        shown: dict[tuple[str, str], Queue] = {}
        await self._request_priority.yield_to_requests()  # sorting 10,000 takes 5 ms
        for queue in sorted(found, key=lambda queue: queue.base):
            # Names that differ as bytes can be equal as text; Prometheus silently keeps only one of
            # two series with the same labels.
            if shown.setdefault((queue.prefix, queue.name), queue) != queue:
                log.warning(
                    "queue not watched: its name is displayed like another queue's",
                    extra={"queue": queue.name},
                )
        return tuple(shown.values())


def _is_number(value: Any) -> bool:
    """Whether this is the beginning of a counter's value, and not an error."""
    return isinstance(value, bytes) and value.isdigit()


def _literal_begin(prefix: str) -> str:
    """The beginning of the keys of a prefix, or of all prefixes that match a pattern."""
    plain = literal(prefix)
    return re.split(r"[*?\[]", prefix)[0] if plain is None else f"{plain}:"


def _refuses_colons(version: Any) -> bool:
    """Whether the BullMQ that wrote this version refuses names with a colon.

    It does from 5.14 on, and 5.0 to 5.18 write no version. BullMQ Pro 7 is based on BullMQ 5.
    """
    match = re.match(rb"bullmq(-pro)?:(\d+)\.", version or b"")
    return match is not None and int(match[2]) >= (7 if match[1] else 5)
