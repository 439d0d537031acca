"""Key names, queue names and job states."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

# Number.MAX_SAFE_INTEGER of JavaScript: no number that BullMQ counts or reckons with is beyond it.
MAX_SAFE_INTEGER = 2**53 - 1


class State(StrEnum):
    """The states of a job, by BullMQ's names: first the six of Open Archiver's Jobs API."""

    ACTIVE = "active"  # a worker holds it
    COMPLETED = "completed"  # finished; only as many as the queue retains
    FAILED = "failed"  # out of attempts; only as many as the queue retains
    DELAYED = "delayed"  # due later, a retry that waits for its backoff among them
    WAITING = "waiting"  # next for a worker
    PAUSED = "paused"  # would wait, but is not taken until the queue is resumed
    PRIORITIZED = "prioritized"  # waits, with a priority
    WAITING_CHILDREN = "waiting-children"  # a flow's parent


def text(raw: bytes) -> str:
    r"""Bytes from Redis as text that can be shown anywhere; what is not UTF-8 becomes `\xff`."""
    return raw.decode("utf-8", "backslashreplace")


# What `text` writes for a byte that is not UTF-8.
_ESCAPED_BYTE = re.compile(rb"\\x([89a-f][0-9a-f])")


def spellings(raw: bytes) -> list[bytes]:
    r"""What `raw` may stand for: itself, or bytes that are not UTF-8 and were shown as `\xff`."""
    unescaped = _ESCAPED_BYTE.sub(lambda found: bytes.fromhex(found[1].decode()), raw)
    return [raw] if unescaped == raw else [raw, unescaped]


# Bytes of UTF-8. Prometheus drops a whole scrape for one label value that is longer than its
# `label_value_length_limit`, which it counts in bytes; 200 is the lowest limit in common use.
MAX_LABEL_BYTES = 200
_HASH_DIGITS = 8


def shorten(value: str) -> str:
    """The value, or its beginning and a hash if it is longer than MAX_LABEL_BYTES.

    The hash distinguishes values with the same beginning, and is the same in every process.
    """
    encoded = value.encode("utf-8", "backslashreplace")
    if len(encoded) <= MAX_LABEL_BYTES:
        return value
    digest = hashlib.sha256(encoded).hexdigest()[:_HASH_DIGITS]
    kept = encoded[: MAX_LABEL_BYTES - len(digest) - 1].decode("utf-8", "ignore")
    return f"{kept}~{digest}"


# Queues whose keys begin with more bytes are not watched: each poll repeats them in some ten
# commands. A name of 1 MB cost Valkey 9 33 ms a poll.
MAX_BASE_BYTES = 4096

# Ids of jobs are remembered until the jobs are finished, and for a while after that: 300 of 1 MB
# took 287 MB. Longer ones are remembered by their beginning and a hash, here and in layout.lua.
MAX_ID_BYTES = 512
_ID_HASH_DIGITS = 40


def remembered_id(job_id: bytes) -> bytes:
    """The id, or its beginning and a hash if it is longer than MAX_ID_BYTES.

    With it nothing is found in Redis: such a job's hash counts as gone.
    """
    if len(job_id) <= MAX_ID_BYTES:
        return job_id
    digest = hashlib.sha1(job_id, usedforsecurity=False).hexdigest()
    return b"%b~%b" % (job_id[: MAX_ID_BYTES - _ID_HASH_DIGITS - 1], digest.encode())


def label_text(raw: bytes) -> str:
    """Bytes from Redis as a label's value: as `text`, and at most MAX_LABEL_BYTES long."""
    return shorten(text(raw))


class JobKey(NamedTuple):
    """Where a job is: BullMQ's `<prefix>:<queue>:<id>`."""

    prefix: str
    queue: str
    raw_id: bytes

    @classmethod
    def parsed(
        cls, raw_key: bytes, prefixes: Iterable[str], queues: Mapping[str, Queue] | None = None
    ) -> JobKey:
        """The parts of a key, by the `queues` that are known (see `Watcher.by_key`): the longest
        that fits is taken.

        Of other queues a prefix may hold colons and a name holds none: the longest of the
        `prefixes` that fits is taken, or what stands before the first colon.
        """
        for known, raw_id in queues_of_key(raw_key, queues or {}):
            return cls(known.prefix, text(known.raw_name), raw_id)
        encoded = (prefix.encode() for prefix in prefixes)
        fitting = [prefix for prefix in encoded if raw_key.startswith(prefix + b":")]
        prefix = max(fitting, key=len, default=raw_key.partition(b":")[0])
        queue, _, raw_id = raw_key[len(prefix) + 1 :].partition(b":")
        return cls(text(prefix), text(queue), raw_id)


# A tuple: each poll looks each queue up in some ten tables, and a hash written in Python took a
# tenth of it.
class Queue(NamedTuple):
    """One BullMQ queue: what it is called, and where its keys are.

    `base` begins each of its keys (`bull:ingestion:`); `name` is for people, and for labels and
    addresses, and so a long one is shortened. Neither this nor the prefix differs where `base` does
    not.
    """

    base: bytes
    prefix: str
    name: str

    @classmethod
    def named(cls, prefix: str, name: str | bytes) -> Queue:
        raw = name.encode() if isinstance(name, str) else name
        return cls(b"%b:%b:" % (prefix.encode(), raw), prefix, label_text(raw))

    @property
    def raw_name(self) -> bytes:
        return self.base[len(self.prefix.encode()) + 1 : -1]

    def job_key(self, job_id: bytes) -> bytes:
        return self.base + job_id

    @property
    def repeat_key(self) -> bytes:
        return self.base + b"repeat"

    def scheduler_key(self, key: bytes) -> bytes:
        return self.base + b"repeat:" + key

    @property
    def meta_key(self) -> bytes:
        return self.base + b"meta"

    @property
    def events_key(self) -> bytes:
        return self.base + b"events"

    @property
    def heartbeat_key(self) -> bytes:
        """Written by Open Archiver's workers (workers/supervision.ts): epoch ms, TTL 10 minutes."""
        return b"oa:worker:%b:alive" % self.raw_name

    @property
    def node_client_name(self) -> bytes:
        """What a Node worker calls its one blocking connection (QueueBase.clientName()).

        A named worker puts `:w:<name>` behind it.
        """
        return b"%b:%b" % (self.prefix.encode(), base64.b64encode(self.raw_name))

    @property
    def python_client_name(self) -> bytes:
        """What a worker of the Python client calls both of its connections (3.4: setName)."""
        return self.base[:-1]


# How far into a job's key the end of its queue's name is looked for: a key may have a million
# colons, and what stands before each of them is copied.
MAX_QUEUE_KEY_BYTES = 4096


def queues_of_key(raw_key: bytes, queues: Mapping[str, Queue]) -> Iterator[tuple[Queue, bytes]]:
    """The queues that a job with this key may belong to, and its id there.

    The longest first: names of queues and ids of jobs may both contain colons.
    """
    end = raw_key.rfind(b":", 0, MAX_QUEUE_KEY_BYTES)
    while end > 0:
        if (queue := queues.get(text(raw_key[:end]))) is not None:
            yield queue, raw_key[end + 1 :]
        end = raw_key.rfind(b":", 0, end)
