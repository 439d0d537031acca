"""Reads event streams whose replies are too large or arrive too slowly."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from exporter.queues.event_log import Entry, StreamInfo, check_entries, check_ids
from exporter.queues.queue_event_counter import QueueEventCounter
from exporter.stores.bullmq.events.stream_info import stream_info
from exporter.stores.bullmq.scripts import load_script
from exporter.stores.redis.client import (
    REPLY_HEAD_BYTES,
    RedisReader,
    RedisRefused,
    RedisUnavailable,
    ReplyIncomplete,
    packed,
)
from exporter.stores.redis.partial_reply import first_items

# Minimum size of a large entry in bytes, most of which is its return value.
LARGE_ENTRY_BYTES = 1 << 16

# The fields of an entry that may be large, after its `event` and `jobId`: return value, failure
# reason, progress, and the job's name, which its hash has too (moveToFinished, updateProgress and
# storeJob of 5.56.3 and 6.7.0).
LARGE_FIELDS = (b"returnvalue", b"failedReason", b"data", b"name")

# Seconds after its last large entry for which a stream is read only by the script, so that large
# return values are not sent. After that the stream costs as much as any other.
LARGE_TTL_SECONDS = 60.0

# Limits of one script call. A larger entry is read alone; XREAD would block Redis for the same
# time.
SCRIPT_STREAMS = 20
SCRIPT_ENTRIES = 300
SCRIPT_BYTES = 4_000_000

# Consecutive failures after which an entry is read from the beginning of its reply.
MAX_SCRIPT_FAILURES = 2
# Seconds after which scripts that Redis has refused are tried again.
SCRIPT_RETRY_SECONDS = 60.0


@dataclass
class Reading:
    """The result of one call, for the streams that it reached."""

    counters: list[QueueEventCounter] = field(default_factory=list)
    # For the streams to check: an error, or None if the stream is unchanged.
    infos: dict[QueueEventCounter, StreamInfo | Exception | None] = field(default_factory=dict)
    entries: dict[bytes, list[Entry]] = field(default_factory=dict)
    unfinished: set[bytes] = field(default_factory=set)  # streams that may have more
    unread: dict[QueueEventCounter, list[Entry]] = field(
        default_factory=dict
    )  # only the id is known
    large: bool = False  # there were large entries


class LargeEntries:
    """Reads the streams that have large entries.

    A read-only script reads entries within Redis and omits what is not needed. If scripts are
    refused or fail, XREAD is sent for one entry, and the needed part is read from the beginning of
    the reply: the connection is closed before the rest arrives.
    """

    def __init__(self, redis: RedisReader) -> None:
        self._redis = redis
        self._script = load_script("events.lua")
        # By stream: until when (monotonic) it is read here.
        self._until: dict[bytes, float] = {}
        # By stream: since when (monotonic) it waits to be read or checked here.
        self._waits_since: dict[bytes, float] = {}
        # Streams of an incomplete reply, until they are read to the end.
        self.suspects: set[bytes] = set()
        # Streams whose first or last entry is large: XINFO STREAM would send both.
        self._large_ends: set[bytes] = set()
        self._failures = 0
        self._scripts_refused_until = 0.0

    def __contains__(self, stream: bytes) -> bool:
        return stream in self._until

    def __bool__(self) -> bool:
        return bool(self._until)

    def is_checked_here(self, stream: bytes) -> bool:
        """Whether this stream is read here, or an ordinary XINFO would send a large entry."""
        return stream in self._until or stream in self._large_ends

    def suspect(self, streams: Collection[bytes]) -> None:
        """Read these streams here until their entries are known not to be large."""
        for stream in streams:
            self._until.setdefault(stream, 0.0)
        self.suspects.update(streams)

    def note_entries(self, stream: bytes, entries: Sequence[Entry]) -> None:
        """Read this stream here from now on if one of the entries is large."""
        if any(map(_is_large, entries)):
            self._until[stream] = time.monotonic() + LARGE_TTL_SECONDS
            if _is_large(entries[-1]):
                self._large_ends.add(stream)

    def note_info(self, stream: bytes, *entry_bytes: int) -> None:
        """Note how large the first and the last entry are."""
        if max(entry_bytes) >= LARGE_ENTRY_BYTES:
            self._large_ends.add(stream)
        else:
            self._large_ends.discard(stream)

    def forget(self, stream: bytes) -> None:
        """Forget a queue that was removed."""
        self._until.pop(stream, None)
        self.suspects.discard(stream)
        self._large_ends.discard(stream)

    def in_turn(self, counters: Collection[QueueEventCounter]) -> list[QueueEventCounter]:
        """The streams that are read or only checked here, the longest-waiting first: if time is too
        short for all, none of them waits forever.
        """
        if not self._until and not self._large_ends:
            return []
        now, before = time.monotonic(), self._waits_since
        here = self._until.keys() | self._large_ends
        self._waits_since = {stream: before.get(stream, now) for stream in here}
        found = [counter for counter in counters if counter.stream in here]
        return sorted(found, key=lambda counter: self._waits_since[counter.stream])

    async def read(
        self,
        counters: Sequence[QueueEventCounter],
        due: Collection[QueueEventCounter],
        *,
        entries: bool = True,
    ) -> Reading:
        """Read what is new in the first of these streams, and in the others as far as limits allow.

        `due`: the streams to check. Without `entries` they are only checked. Raises
        RedisUnavailable; then the next call requests less.
        """
        if self._failures:
            counters = counters[:1]
        for counter in counters[:1]:  # if it fails, others come first next time
            self._waits_since[counter.stream] = time.monotonic()
        try:
            reading = await self._read(counters[:SCRIPT_STREAMS], due, entries)
        except RedisUnavailable:
            self._failures += 1
            raise
        self._failures = 0
        for counter in reading.counters:
            self._waits_since[counter.stream] = time.monotonic()
            if entries and counter.stream not in reading.unfinished:
                self.suspects.discard(counter.stream)
                if self._until.get(counter.stream, 0.0) <= time.monotonic():
                    self._until.pop(counter.stream, None)
        return reading

    async def _read(
        self,
        counters: Sequence[QueueEventCounter],
        due: Collection[QueueEventCounter],
        entries: bool,
    ) -> Reading:
        now = time.monotonic()
        if self._failures < MAX_SCRIPT_FAILURES and now >= self._scripts_refused_until:
            try:
                return await self._run_script(counters, due, entries)
            except RedisRefused as error:
                if "MOVED" in str(error):
                    raise
                self._scripts_refused_until = now + SCRIPT_RETRY_SECONDS
        return await self._read_beginnings(counters[0], due, entries)

    # By the script

    async def _run_script(
        self,
        counters: Sequence[QueueEventCounter],
        due: Collection[QueueEventCounter],
        entries: bool,
    ) -> Reading:
        arguments: list[bytes | str | int] = []
        for counter in counters:
            cursor = counter.cursor
            # If nothing was read since, an unchanged length shows that nothing was added.
            rested = cursor.first is not None and cursor.checked == cursor.position
            known: str | int = cursor.length if rested else -1
            arguments += [cursor.position if entries else b"", known if counter in due else b""]
        reply = await self._redis.run(
            self._script,
            [counter.stream for counter in counters],
            (SCRIPT_ENTRIES, SCRIPT_BYTES, *arguments),
        )
        reading, until = Reading(), time.monotonic() + LARGE_TTL_SECONDS
        for counter, (info, unfinished, largest, found) in zip(counters, reply, strict=False):
            reading.counters.append(counter)
            if counter in due or isinstance(info, Exception):
                reading.infos[counter] = self._info(counter, info)
            if found:
                new = [(entry_id, words) for entry_id, words in found]
                check_entries(new, counter.cursor.position)
                reading.entries[counter.stream] = new
            if unfinished:
                reading.unfinished.add(counter.stream)
            if largest >= LARGE_ENTRY_BYTES:
                reading.large = True
                self._until[counter.stream] = until
                self._large_ends.add(counter.stream)
        return reading

    def _info(self, counter: QueueEventCounter, reply: Any) -> StreamInfo | Exception | None:
        if isinstance(reply, Exception):
            return reply
        if not reply:
            return None
        length, first, last, added, first_bytes, last_bytes = reply
        self.note_info(counter.stream, first_bytes, last_bytes)
        return StreamInfo(length, first or None, last, added).checked()

    # From the beginning of a reply

    async def _read_beginnings(
        self, counter: QueueEventCounter, due: Collection[QueueEventCounter], entries: bool
    ) -> Reading:
        reading = Reading([counter])
        if counter in due:
            reading.infos[counter] = await self._info_by_beginning(counter)
        if entries:
            command = ("XREAD", "COUNT", 1, "STREAMS", counter.stream, counter.cursor.position)
            reply, incomplete = await self._beginning(*command)
            if isinstance(reply, Exception):
                reading.infos[counter] = reply
            elif reply or incomplete is not None:
                self._take(reading, counter, reply, incomplete)
        return reading

    async def _info_by_beginning(self, counter: QueueEventCounter) -> StreamInfo | Exception:
        reply, incomplete = await self._beginning("XINFO", "STREAM", counter.stream)
        if isinstance(reply, Exception):
            return reply
        if incomplete is not None:
            self._large_ends.add(counter.stream)
            reply = dict(zip(reply[::2], reply[1::2], strict=False))
            if reply.get(b"first-entry") == []:
                del reply[b"first-entry"]  # it was cut off before its id
            if b"first-entry" not in reply and b"recorded-first-entry-id" not in reply:
                raise incomplete
        return stream_info(reply)

    def _take(
        self,
        reading: Reading,
        counter: QueueEventCounter,
        reply: Any,
        incomplete: ReplyIncomplete | None,
    ) -> None:
        """Add the entry of a reply, or of the beginning of one, to the reading.

        Raises ReplyIncomplete if the beginning does not contain enough of the entry, and more of it
        could still be read.
        """
        entry = _first_entry(reply) if reply else None
        if entry is None:
            raise incomplete or RedisUnavailable("XREAD: no entry in the reply")
        check_ids([counter.cursor.position, entry[0]])
        reading.unfinished.add(counter.stream)
        if incomplete is None or _holds_enough(entry[1]):
            reading.entries[counter.stream] = [entry]
        elif len(incomplete.head) < REPLY_HEAD_BYTES:
            raise incomplete
        else:
            reading.unread[counter] = [entry]
        if incomplete is not None or _is_large(entry):
            reading.large = True
            self._large_ends.add(counter.stream)
            self._until[counter.stream] = time.monotonic() + LARGE_TTL_SECONDS

    async def _beginning(self, *command: bytes | str | int) -> tuple[Any, ReplyIncomplete | None]:
        """The reply, or the items at its beginning and why it is incomplete."""
        try:
            (reply,) = await self._redis.packed(packed(command), 1, unknown_size=True)
        except ReplyIncomplete as error:
            return first_items(error.head), error
        return reply, None


def _first_entry(reply: Any) -> Entry | None:
    """The first entry of an XREAD's reply, of which only the beginning may be known."""
    # Streams are pairs in a list in RESP2, and a map in RESP3: a flat list if it is incomplete.
    stream = next(iter(reply.items())) if isinstance(reply, dict) else reply
    if not isinstance(stream[0], bytes):
        stream = stream[0]
    entry = stream[1][0] if len(stream) > 1 and stream[1] else ()
    return (entry[0], entry[1] if len(entry) > 1 else []) if entry else None


def _holds_enough(words: Sequence[bytes]) -> bool:
    """Whether the words at its beginning contain all that is used of an entry.

    That is the event and the job. Only the value that is cut off and the field after it (`prev`),
    which is not used, may follow.
    """
    return len(words) >= 5 and words[4] in LARGE_FIELDS


def _is_large(entry: Entry) -> bool:
    words = entry[1]
    return len(words) > 5 and sum(map(len, words)) >= LARGE_ENTRY_BYTES
