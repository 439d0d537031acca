"""Queues, states and keys of jobs: what they are called, wherever they are kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

from exporter.queues.text import label_text, text


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


# Queues whose keys begin with more bytes are not watched: each poll repeats them in some ten
# commands. A name of 1 MB cost Valkey 9 33 ms a poll.
MAX_BASE_BYTES = 4096


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
        match is taken.

        For other queues the longest matching one of `prefixes` is taken, or what precedes the first
        colon: a prefix may contain colons, a name does not.
        """
        for known, raw_id in queues_of_key(raw_key, queues or {}):
            return cls(known.prefix, text(known.raw_name), raw_id)
        encoded = (prefix.encode() for prefix in prefixes)
        fitting = [prefix for prefix in encoded if raw_key.startswith(prefix + b":")]
        prefix = max(fitting, key=len, default=raw_key.partition(b":")[0])
        queue, _, raw_id = raw_key[len(prefix) + 1 :].partition(b":")
        return cls(text(prefix), text(queue), raw_id)


# A tuple: each poll looks each queue up in some ten tables, and a `__hash__` written in Python took
# a tenth of the poll's time.
class Queue(NamedTuple):
    """One BullMQ queue: what it is called, and where its keys are.

    Each of its keys begins with `base` (`bull:ingestion:`). `name` is for people, labels and
    addresses, so a long one is shortened. `base` determines both the name and the prefix.
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


# How far into a job's key the end of its queue's name is searched for: a key may have a million
# colons, and what precedes each of them is copied.
MAX_QUEUE_KEY_BYTES = 4096


def queues_of_key(raw_key: bytes, queues: Mapping[str, Queue]) -> Iterator[tuple[Queue, bytes]]:
    """The queues that a job with this key may belong to, and its id there.

    The longest name first, because names of queues and ids of jobs may both contain colons.
    """
    end = raw_key.rfind(b":", 0, MAX_QUEUE_KEY_BYTES)
    while end > 0:
        if (queue := queues.get(text(raw_key[:end]))) is not None:
            yield queue, raw_key[end + 1 :]
        end = raw_key.rfind(b":", 0, end)
